"""The scan: classes and their order, made splits, what has no influence, and what stops it."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.images import write_classes, write_image
from tests.data.scans import error, row_by_row
from tl_kit.config import DataConfig
from tl_kit.data import folders
from tl_kit.data.listing import natural_key
from tl_kit.data.scan import scan


def test_class_folders(tmp_path):
    write_classes(tmp_path, {"dog": 10, "cat": 20})
    manifest = scan(tmp_path)
    assert manifest.root == tmp_path
    assert manifest.classes == ("cat", "dog")
    assert manifest.counts() == {
        "train": {"cat": 12, "dog": 6},
        "val": {"cat": 4, "dog": 2},
        "test": {"cat": 4, "dog": 2},
    }
    assert manifest.exclusions == ()
    assert len(manifest.notes) == 2
    assert all("20%" in note and "(6 images)" in note for note in manifest.notes)
    for sample in manifest.samples:
        assert sample.path.is_absolute()
        assert sample.path.parent.name == manifest.classes[sample.label]
        assert sample.digest == hashlib.sha256(sample.path.read_bytes()).hexdigest()


def test_classes_are_in_natural_order_and_keep_their_names(tmp_path):
    names = ["10", "2", "1", "Class 9", "class 11", "été", "t-shirt", "002"]
    write_classes(tmp_path, dict.fromkeys(names, 2))
    assert scan(tmp_path).classes == ("1", "002", "2", "10", "Class 9", "class 11", "t-shirt", "été")


@given(st.lists(st.text(min_size=1), max_size=8))
def test_the_natural_order_is_total_and_tells_different_names_apart(names):
    assert sorted(set(names), key=natural_key) == sorted(sorted(set(names), reverse=True), key=natural_key)


def test_numbers_are_ordered_as_numbers():
    assert sorted(["x10y2", "x9y10", "x9y9", "x10y1", "x"], key=natural_key) == ["x", "x9y9", "x9y10", "x10y1", "x10y2"]


def test_samples_are_ordered_by_split_label_and_digest(tmp_path):
    manifest = scan(write_classes(tmp_path, {"a": 9, "b": 9}))
    order = {"train": 0, "val": 1, "test": 2}
    keys = [(order[s.split], s.label, s.digest) for s in manifest.samples]
    assert keys == sorted(keys)


def test_nested_folders_belong_to_their_class(tmp_path):
    write_classes(tmp_path, {"a": 2, "b": 2})
    write_image(tmp_path / "a" / "2024" / "may" / "x.png", 77)
    manifest = scan(tmp_path)
    assert {s.path.name for s in manifest.samples if s.label == 0} == {"0.png", "1.png", "x.png"}


def test_relative_paths_and_links_to_folders(tmp_path, monkeypatch):
    write_classes(tmp_path / "real", {"a": 3, "b": 3})
    (tmp_path / "linked").symlink_to(tmp_path / "real")
    monkeypatch.chdir(tmp_path)
    relative, linked = scan(Path("real")), scan(tmp_path / "linked")
    assert relative.root == tmp_path / "real"
    assert linked.root == tmp_path / "linked"
    assert relative.content_hash() == linked.content_hash()


def test_renamed_and_moved_files_change_nothing(tmp_path):
    first = scan(write_classes(tmp_path / "one", {"a": 12, "b": 7}))
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    for number, file in enumerate(sorted((tmp_path / "two").rglob("*.png"), reverse=True)):
        target = file.parent / ("nested" if number % 3 == 0 else ".") / f"{number * 7919 % 101}-renamed.jpeg"
        target.parent.mkdir(exist_ok=True)
        file.rename(target)
    second = scan(tmp_path / "two")
    assert row_by_row(second) == row_by_row(first)
    assert second.content_hash() == first.content_hash()


def test_renamed_classes_keep_their_splits(tmp_path):
    first = scan(write_classes(tmp_path / "one", {"a": 12, "b": 7, "c": 7}))
    for old, new in (("a", "z"), ("b", "10"), ("c", "9")):
        shutil.copytree(tmp_path / "one" / old, tmp_path / "two" / new)
    second = scan(tmp_path / "two")
    assert {s.digest: s.split for s in first.samples} == {s.digest: s.split for s in second.samples}
    assert first.content_hash() != second.content_hash()


class Backwards(list):
    """A folder's entries, closed after use as pathlib of Python 3.13 does."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def test_the_order_in_which_folders_are_listed_changes_nothing(tmp_path, monkeypatch):
    write_classes(tmp_path, {"a": 6, "b": 6})
    expected = scan(tmp_path)
    scandir = os.scandir
    monkeypatch.setattr(folders.os, "scandir", lambda path: Backwards(reversed(list(scandir(path)))))
    assert scan(tmp_path) == expected


def test_another_content_is_another_hash(tmp_path):
    manifest = scan(write_classes(tmp_path, {"a": 6, "b": 6}))
    write_image(tmp_path / "a" / "0.png", 999)
    assert scan(tmp_path).content_hash() != manifest.content_hash()


def test_the_split_seed_and_fractions_are_used(tmp_path):
    write_classes(tmp_path, {"a": 20, "b": 20})
    plain = scan(tmp_path)
    assert row_by_row(scan(tmp_path, DataConfig(split_seed=1))) != row_by_row(plain)
    counts = scan(tmp_path, DataConfig(val_fraction=0.1, test_fraction=0.3)).counts()
    assert (counts["train"]["a"], counts["val"]["a"], counts["test"]["a"]) == (12, 2, 6)


def test_identical_images_stay_on_one_side(tmp_path):
    write_classes(tmp_path, {"a": 10, "b": 10})
    for index in range(10):
        shutil.copy(tmp_path / "a" / f"{index}.png", tmp_path / "a" / f"copy {index}.png")
    shutil.copy(tmp_path / "a" / "0.png", tmp_path / "b" / "also.png")
    sides: dict[str, set[str]] = {}
    for sample in scan(tmp_path).samples:
        sides.setdefault(sample.digest, set()).add(sample.split)
    assert len(sides) == 20
    assert all(len(side) == 1 for side in sides.values())


@pytest.mark.parametrize("counts", [{"a": 3, "b": 2}, {"a": 4, "b": 1}, {"a": 2, "b": 1, "c": 1, "d": 1}])
def test_five_images(tmp_path, counts):
    table = scan(write_classes(tmp_path, counts)).counts()
    assert all(table["train"][name] >= 1 for name in counts)
    assert sum(table["val"].values()) >= 1


def test_paths_that_hold_no_data_set(tmp_path):
    assert "no such file or folder" in error(tmp_path / "none")
    assert "is empty" in error(tmp_path)
    (tmp_path / "x").write_text("text")
    assert "none of the forms of a data set" in error(tmp_path / "x")
    assert "holds 1 files but no folders; expected are class folders" in error(tmp_path)
    (tmp_path / "a").mkdir()
    assert "no image was found" in error(tmp_path)
    write_image(tmp_path / "a" / "1.png", 1)
    assert "only one class has images, 'a'" in error(tmp_path)


def test_split_folders_without_class_folders(tmp_path):
    write_image(tmp_path / "train" / "1.png", 1)
    write_image(tmp_path / "val" / "2.png", 2)
    assert "no image was found" in error(tmp_path)


def test_one_image_a_class_leaves_nothing_to_validate_on(tmp_path):
    assert "no validation image" in error(write_classes(tmp_path, {"a": 1, "b": 1, "c": 1}))


def test_progress_counts_files_to_the_last(tmp_path):
    write_classes(tmp_path, {"a": 30, "b": 20})
    (tmp_path / "a" / "x.txt").write_text("text")
    seen: list[tuple[int, int]] = []
    scan(tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert seen[-1] == (51, 51)

"""Split folders, and what is left out of folders and why."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from tests.data.images import encoded, huge_bmp, noise, write_classes, write_image
from tests.data.scans import error, reasons, row_by_row, write_csv
from tl_kit.data import folders
from tl_kit.data.manifest import Exclusion, check_trainable
from tl_kit.data.scan import scan
from tl_kit.diagnosis.split_checks import check_discipline
from tl_kit.errors import DataError


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("train", "val", "test"),
        ("Training", "VALID", "Testing"),
        ("TRAIN", "validation", "holdout"),
        ("train", "dev", "test"),
    ],
)
def test_split_folders(tmp_path, train, val, test):
    for seed, name in enumerate((train, val, test)):
        write_classes(tmp_path / name, {"a": 3 - seed, "b": 2}, seed=seed)
    manifest = scan(tmp_path)
    assert manifest.counts() == {"train": {"a": 3, "b": 2}, "val": {"a": 2, "b": 2}, "test": {"a": 1, "b": 2}}
    assert {(s.path.parts[-3], s.split) for s in manifest.samples} == {(train, "train"), (val, "val"), (test, "test")}
    assert manifest.notes == ()


def test_train_and_val_without_test_are_kept_whole(tmp_path):
    write_classes(tmp_path / "train", {"a": 10, "b": 10})
    write_classes(tmp_path / "val", {"a": 2, "b": 2}, seed=1)
    manifest = scan(tmp_path)
    assert manifest.counts() == {"train": {"a": 10, "b": 10}, "val": {"a": 2, "b": 2}}
    assert len(manifest.notes) == 1
    assert "no test split" in manifest.notes[0]


def test_val_is_made_from_train_where_test_is_given(tmp_path):
    write_classes(tmp_path / "train", {"a": 10, "b": 5})
    write_classes(tmp_path / "test", {"a": 2, "b": 2}, seed=1)
    manifest = scan(tmp_path)
    assert manifest.counts() == {"train": {"a": 8, "b": 4}, "val": {"a": 2, "b": 1}, "test": {"a": 2, "b": 2}}
    assert manifest.notes == ("no val split is given: 20% of each class set aside (3 images)",)


def test_a_split_that_cannot_be_made_says_so(tmp_path):
    write_classes(tmp_path, {"a": 2, "b": 2})
    val, test = scan(tmp_path).notes
    assert val.startswith(
        "no val split is given: 2 of 4 images set aside (50%, not 20%: groups and copies stay together"
    )
    assert test == ("no test split is given, and none is made: the classes have too few images or groups to separate")


@pytest.mark.parametrize(
    ("groups", "images", "why"),
    [
        ("ab", 3, "the images of each class belong together (one group, or copies of one image)"),
        ("  ", 1, "if these are classes: add a val split, or a second image to some class"),
        ("gg", 3, "the images of each class belong together"),
    ],
)
def test_why_there_is_no_validation_image(tmp_path, groups, images, why):
    write_classes(tmp_path, {"a": 3, "b": 3})
    rows = [f"{name}/{i}.png,{name},{groups['ab'.index(name)].strip()}" for name in "ab" for i in range(images)]
    text = error(write_csv(tmp_path, "path,label,group\n" + "\n".join(rows)))
    assert "no validation image" in text
    assert why in text


def test_a_val_split_that_cannot_be_used(tmp_path):
    write_classes(tmp_path / "train", {"a": 3, "b": 3})
    write_classes(tmp_path / "val", {"a": 2, "b": 2}, seed=1)
    manifest = scan(tmp_path)
    broken = [Exclusion(sample.path, "truncated") for sample in manifest.split("val")]
    with pytest.raises(DataError, match="none of the val split can be used: see the files that were left out"):
        check_trainable(manifest.without(broken))


def test_train_alone_is_split_like_class_folders(tmp_path):
    write_classes(tmp_path / "train", {"a": 10, "b": 10})
    assert row_by_row(scan(tmp_path)) == row_by_row(scan(tmp_path / "train"))


def test_a_class_that_is_called_train(tmp_path):
    counts = {"train": 4, "bus": 4, "car": 4}
    assert scan(write_classes(tmp_path, counts)).classes == ("bus", "car", "train")


def test_folders_next_to_the_splits_are_left_out(tmp_path):
    write_classes(tmp_path / "train", {"a": 3, "b": 3})
    write_classes(tmp_path / "val", {"a": 1, "b": 1}, seed=1)
    write_classes(tmp_path / "models", {"resnet": 1})
    (tmp_path / "test").mkdir()
    write_image(tmp_path / "test" / "unlabelled.png", 5)
    (tmp_path / "README.md").write_text("about")
    manifest = scan(tmp_path)
    assert reasons(manifest) == {
        "models": "stray folder next to the split folders",
        "test": "split folder without class folders: its files have no labels",
        "README.md": "stray file next to the split folders",
    }
    assert set(manifest.counts()) == {"train", "val"}


@pytest.mark.parametrize("names", [["val"], ["test"], ["val", "test"]])
def test_no_training_folder(tmp_path, names):
    for name in names:
        write_classes(tmp_path / name, {"a": 3, "b": 3})
    text = error(tmp_path)
    assert "no train folder" in text
    assert all(f"'{name}'" in text for name in names)


def test_two_folders_for_one_split(tmp_path):
    for name in ("train", "val", "validation"):
        write_classes(tmp_path / name, {"a": 3, "b": 3})
    assert "val/ and validation/" in error(tmp_path)


def test_splits_that_disagree_on_classes_are_named_with_the_classes(tmp_path):
    write_classes(tmp_path / "train", {"a": 3, "b": 3, "c": 3})
    write_classes(tmp_path / "val", {"a": 1, "b": 1}, seed=1)
    write_classes(tmp_path / "test", {"a": 1, "b": 1, "c": 1, "d": 1}, seed=2)
    text = error(tmp_path)
    assert "train lacks 'd'" in text
    assert "val lacks 'c', 'd'" in text
    assert "test lacks" not in text


@pytest.mark.parametrize(("in_train", "in_val"), [("Cat", "cat"), ("a ", "a")])
def test_class_names_are_taken_verbatim(tmp_path, in_train, in_val):
    write_classes(tmp_path / "train", {in_train: 3, "b": 3})
    write_classes(tmp_path / "val", {in_val: 1, "b": 1}, seed=1)
    text = error(tmp_path)
    assert f"train lacks '{in_val}'" in text
    assert f"val lacks '{in_train}'" in text


def test_a_class_whose_files_are_all_broken_is_missing(tmp_path):
    write_classes(tmp_path / "train", {"a": 3, "b": 3})
    write_classes(tmp_path / "val", {"a": 1}, seed=1)
    (tmp_path / "val" / "b").mkdir()
    (tmp_path / "val" / "b" / "x.png").write_bytes(b"")
    with pytest.raises(DataError, match="class-missing: val has no image of 'b'"):
        check_discipline(scan(tmp_path))


def test_every_exclusion_has_its_path_and_reason(tmp_path):
    write_classes(tmp_path, {"a": 3, "b": 3})
    image = (tmp_path / "a" / "0.png").read_bytes()
    (tmp_path / ".git").mkdir()
    write_image(tmp_path / ".git" / "x.png", 3)
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "stray.png").write_bytes(image)
    (tmp_path / "labels.txt").write_text("a b")
    (tmp_path / "empty").mkdir()
    (tmp_path / "only text").mkdir()
    (tmp_path / "only text" / "readme.jpg").write_text("no image at all")
    (tmp_path / "a" / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (tmp_path / "a" / "notes.txt").write_text("some notes")
    (tmp_path / "a" / "zero.jpg").write_bytes(b"")
    (tmp_path / "a" / "stub.png").write_bytes(image[:20])
    (tmp_path / "a" / "huge.bmp").write_bytes(huge_bmp(width=30000, height=30000))
    (tmp_path / "a" / "dangling.jpg").symlink_to(tmp_path / "gone.jpg")
    (tmp_path / "b" / "itself").symlink_to("itself")
    (tmp_path / "b" / "loop").symlink_to(tmp_path / "b")
    os.mkfifo(tmp_path / "b" / "pipe.jpg")
    found = reasons(scan(tmp_path))
    assert found.pop("a/stub.png") in ("truncated", "damaged: its PNG header cannot be read")
    assert found.pop("a/huge.bmp").startswith("too large: 30000x30000 pixels")
    assert found == {
        ".git": "hidden",
        "__MACOSX": "hidden",
        "stray.png": "stray file not inside a class folder",
        "labels.txt": "stray file not inside a class folder",
        "empty": "class folder without images",
        "only text": "class folder without images",
        "only text/readme.jpg": "not an image",
        "a/.DS_Store": "hidden",
        "a/notes.txt": "not an image",
        "a/zero.jpg": "empty file",
        "a/dangling.jpg": "dangling symbolic link",
        "b/itself": "symbolic link in a loop",
        "b/loop": "symbolic link to a folder that is read already",
        "b/pipe.jpg": "not a regular file",
    }
    assert scan(tmp_path).classes == ("a", "b")


def test_files_and_folders_that_cannot_be_read(tmp_path, monkeypatch):
    write_classes(tmp_path, {"a": 3, "b": 3, "locked": 3})
    scandir, opening = os.scandir, os.open

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(folders.os, "scandir", lambda p: refuse(p) if Path(p).name == "locked" else scandir(p))
    monkeypatch.setattr(os, "open", lambda p, *a: refuse(p) if Path(p).match("b/1.png") else opening(p, *a))
    manifest = scan(tmp_path)
    assert reasons(manifest) == dict.fromkeys(("b/1.png", "locked"), "cannot be read: Permission denied")


def test_the_ending_does_not_matter(tmp_path):
    write_classes(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "a" / "photo").write_bytes(encoded(Image.fromarray(noise(5)), "JPEG"))
    (tmp_path / "a" / "photo.txt").write_bytes(encoded(Image.fromarray(noise(6)), "BMP"))
    manifest = scan(tmp_path)
    assert manifest.exclusions == ()
    assert sum(s.label == 0 for s in manifest.samples) == 4


def test_large_files_that_are_no_images_are_not_read_to_their_end(tmp_path):
    write_classes(tmp_path, {"a": 2, "b": 2})
    with (tmp_path / "a" / "film.mp4").open("wb") as stream:
        stream.truncate(1 << 40)  # a sparse tebibyte
    assert reasons(scan(tmp_path)) == {"a/film.mp4": "not an image"}

"""The doctor: each ailment is found where it is and nowhere else, and only what stops training blocks."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.data.images import encoded, noise, write_classes, write_image
from tl_kit.config import DoctorConfig
from tl_kit.data.doctor import Report, examine

PHOTOS = Path(__file__).parents[2].parent / "shared" / "data"


def write_healthy(root: Path) -> Path:
    """Given splits, all classes in each, images of 32 pixels and more: nothing to find."""
    for seed, (split, count) in enumerate({"train": 6, "val": 2, "test": 2}.items()):
        for name in ("a", "b"):
            for index in range(count):
                write_image(root / split / name / f"{index}.png", seed * 100 + ord(name) * 1000 + index, size=32)
    return root


def found(report: Report) -> dict[str, list[str]]:
    """Paths below the root of each finding, by severity and code."""
    return {
        f"{item.severity} {item.code}": sorted(str(path.relative_to(report.root)) for path in item.paths)
        for item in report.findings
    }


def test_a_healthy_data_set(tmp_path):
    report = examine(write_healthy(tmp_path))
    assert report.findings == ()
    assert not report.blocks
    assert report.manifest is not None
    assert len(report.manifest.samples) == 20


def test_what_the_scan_refuses_is_a_finding(tmp_path):
    report = examine(tmp_path / "none")
    assert report.blocks
    assert report.manifest is None
    assert [(item.severity, item.code) for item in report.findings] == [("error", "unusable")]
    assert "no such file" in report.findings[0].message


def test_splits_that_disagree_block(tmp_path):
    shutil.rmtree(write_healthy(tmp_path) / "val" / "b")
    report = examine(tmp_path)
    assert report.blocks
    assert "val lacks 'b'" in report.findings[0].message


def test_exclusions_and_broken_pixels(tmp_path):
    write_healthy(tmp_path)
    whole = encoded(Image.fromarray(noise(1, height=64, width=64)), "JPEG")
    for name in ("cut 1.jpg", "cut 2.jpg"):  # a sound header: only the full decode shows it
        (tmp_path / "train" / "a" / name).write_bytes(whole[: len(whole) // 2])
    (tmp_path / "train" / "b" / "notes.txt").write_text("some notes")
    (tmp_path / "train" / ".DS_Store").write_bytes(b"\0")
    report = examine(tmp_path)
    by_reason = {item.message: sorted(path.name for path in item.paths) for item in report.findings}
    assert by_reason == {
        "2 left out: truncated": ["cut 1.jpg", "cut 2.jpg"],
        "1 left out: not an image": ["notes.txt"],
        "1 left out: hidden": [".DS_Store"],
    }
    assert [item.severity for item in report.findings] == ["warning", "warning", "info"]
    assert not report.blocks
    assert report.manifest is not None
    assert len(report.manifest.samples) == 20


def test_a_class_without_a_sound_training_image_blocks(tmp_path):
    write_healthy(tmp_path)
    shutil.rmtree(tmp_path / "train" / "b")
    (tmp_path / "train" / "b").mkdir()
    whole = encoded(Image.fromarray(noise(1, height=64, width=64)), "PNG")
    (tmp_path / "train" / "b" / "cut.png").write_bytes(whole[: len(whole) // 2])
    report = examine(tmp_path)
    assert report.blocks
    errors = [item for item in report.findings if item.severity == "error"]
    assert report.findings[0] == errors[0]
    assert "1 of its classes have training images" in errors[0].message


def test_identical_images_across_given_splits(tmp_path):
    write_healthy(tmp_path)
    shutil.copy(tmp_path / "train" / "a" / "0.png", tmp_path / "test" / "a" / "leak.png")
    assert found(examine(tmp_path)) == {"warning split-leak": ["test/a/leak.png", "train/a/0.png"]}


def test_one_image_under_two_labels(tmp_path):
    write_healthy(tmp_path)
    shutil.copy(tmp_path / "train" / "a" / "0.png", tmp_path / "train" / "b" / "same.png")
    assert found(examine(tmp_path)) == {"warning label-conflict": ["train/a/0.png", "train/b/same.png"]}


def test_copies_within_a_class(tmp_path):
    write_healthy(tmp_path)
    shutil.copy(tmp_path / "train" / "a" / "0.png", tmp_path / "train" / "a" / "copy.png")
    assert found(examine(tmp_path)) == {"info duplicate": ["train/a/0.png", "train/a/copy.png"]}


def test_groups_that_span_given_splits(tmp_path):
    write_healthy(tmp_path / "images")
    rows = ["path,label,split,group"]
    for file in sorted((tmp_path / "images").rglob("*.png")):
        split, label, name = file.parts[-3:]
        group = (
            "anna" if (split, label, name) in {("train", "a", "0.png"), ("val", "a", "1.png")} else f"{split}{label}"
        )
        rows.append(f"images/{split}/{label}/{name},{label},{split},{group}")
    file = tmp_path / "labels.csv"
    file.write_text("\n".join(rows))
    report = examine(file)
    assert [item.code for item in report.findings] == ["group-leak"]
    assert {path.parts[-3:] for path in report.findings[0].paths} == {("train", "a", "0.png"), ("val", "a", "1.png")}


def test_made_splits_are_noted_and_never_leak(tmp_path):
    write_healthy(tmp_path)
    shutil.copy(tmp_path / "train" / "a" / "0.png", tmp_path / "train" / "a" / "copy.png")
    codes = [item.code for item in examine(tmp_path / "train").findings]
    assert codes == ["note", "note", "duplicate"]


def test_small_classes_and_imbalance(tmp_path):
    for seed, (name, count) in enumerate({"many": 120, "few": 4, "one": 1}.items()):
        for index in range(count):
            write_image(tmp_path / name / f"{index}.png", seed * 1000 + index, size=32)
    report = examine(tmp_path)
    messages = {item.code: item.message for item in report.findings if item.code != "note"}
    assert messages == {
        "few-images": "fewer than 5 images: 'few', 'one'",
        "class-missing": "test has no image of 'one'",
        "imbalance": "in train, class 'many' has 72 images and class 'one' has 1",
    }
    assert not report.blocks


def test_classes_missing_from_a_made_split_are_named_for_each_split(tmp_path):
    for name, count in {"a": 6, "b": 1}.items():
        for index in range(count):
            write_image(tmp_path / name / f"{index}.png", len(name) * ord(name) + 1000 * index, size=32)
    missing = [item.message for item in examine(tmp_path).findings if item.code == "class-missing"]
    assert missing == ["val has no image of 'b'", "test has no image of 'b'"]


@pytest.mark.parametrize("ratio", [10, 11])
def test_imbalance_begins_above_its_limit(tmp_path, ratio):
    write_classes(tmp_path / "train", {"a": 5 * ratio, "b": 5})
    write_classes(tmp_path / "val", {"a": 1, "b": 1}, seed=1)
    codes = {item.code for item in examine(tmp_path).findings}
    assert ("imbalance" in codes) == (ratio > 10)


def test_very_small_images_also_among_jpegs(tmp_path):
    write_healthy(tmp_path)
    write_image(tmp_path / "train" / "a" / "small.png", 5, size=31)
    for name, size in {"narrow.jpg": (500, 31), "enough.jpg": (500, 32), "large.jpg": (700, 513)}.items():
        (tmp_path / "train" / "a" / name).write_bytes(encoded(Image.new("RGB", size, "teal"), "JPEG"))
    assert found(examine(tmp_path)) == {"warning small-image": ["train/a/narrow.jpg", "train/a/small.png"]}
    assert found(examine(tmp_path, limits=DoctorConfig(min_side=31))) == {}


def test_progress(tmp_path):
    seen: list[tuple[int, int]] = []
    examine(write_healthy(tmp_path), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 20) for done in range(1, 21)]


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="the real photos (shared/data) are not here")
def test_real_photos_are_sound():
    report = examine(PHOTOS / "clothing")
    assert not report.blocks
    assert not [item for item in report.findings if item.code == "excluded"]

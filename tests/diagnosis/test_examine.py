"""The doctor: each ailment is found where it is and nowhere else, and only what stops training blocks."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.images import encoded, noise, png, write_classes, write_image
from tests.data.planting import copied, photo, write_given_away, write_photos
from tests.helpers import few_digits
from tl_kit.config import DoctorConfig
from tl_kit.data.findings import BLOCKING, REMEDIES
from tl_kit.demonstration import write_digits
from tl_kit.diagnosis.examine import Report, examine
from tl_kit.diagnosis.shortcuts import KINDS


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
    first = report.findings[0]
    assert (first.severity, first.code, first.message) == ("error", "class-missing", "val has no image of 'b'")


def test_a_class_that_train_alone_lacks_leaves_nothing_to_train_on(tmp_path):
    shutil.rmtree(write_healthy(tmp_path) / "train" / "b")
    report = examine(tmp_path)
    assert [item.code for item in report.findings] == ["unusable"]
    assert "train lacks 'b'" in report.findings[0].message


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
    assert found(examine(tmp_path)) == {"error split-leak": ["test/a/leak.png", "train/a/0.png"]}


def test_one_image_under_two_labels(tmp_path):
    write_healthy(tmp_path)
    shutil.copy(tmp_path / "train" / "a" / "0.png", tmp_path / "train" / "b" / "same.png")
    assert found(examine(tmp_path)) == {"error label-conflict": ["train/a/0.png", "train/b/same.png"]}


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
    assert [(item.severity, item.code) for item in report.findings] == [("error", "group-leak")]
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
        pixels = noise(len(name), height=size[1], width=size[0])
        (tmp_path / "train" / "a" / name).write_bytes(encoded(Image.fromarray(pixels), "JPEG"))
    assert found(examine(tmp_path)) == {"warning small-image": ["train/a/narrow.jpg", "train/a/small.png"]}
    assert found(examine(tmp_path, limits=DoctorConfig(min_side=31))) == {}


@pytest.mark.parametrize(("width", "share"), [(40, None), (64, "48%"), (128, "71%")])
def test_images_that_a_centre_crop_hides_much_of(tmp_path, width, share):
    """Three tenths of all pixels at least; the one image that is square is not named."""
    write_healthy(tmp_path)
    for index, path in enumerate(sorted(tmp_path.rglob("*.png"))):
        Image.fromarray(noise(index, height=32, width=width)).save(path)
    square = tmp_path / "train" / "a" / "square.png"
    Image.fromarray(noise(99, height=32, width=32)).save(square)
    report = examine(tmp_path)
    if share is None:
        assert report.findings == ()
        return
    (finding,) = report.findings
    assert (finding.severity, finding.code) == ("info", "cut-off")
    assert square not in finding.paths
    assert len(finding.paths) == 20
    assert f"hides {share} of all pixels" in finding.message
    assert "--crop-mode" in finding.remedy
    assert examine(tmp_path, limits=DoctorConfig(max_cut_off=0.9)).findings == ()


def test_different_photos_are_not_alike(tmp_path):
    assert found(examine(write_photos(tmp_path))) == {}


@pytest.mark.parametrize("how", ["resized", "mirrored"])
@pytest.mark.parametrize(
    ("place", "finding"),
    [
        ("test/a", "warning near-split-leak"),
        ("train/b", "warning near-label-conflict"),
        ("train/a", "info near-duplicate"),
    ],
)
def test_a_copy_in_another_file_is_found_by_what_it_shows(tmp_path, how, place, finding):
    write_photos(tmp_path)
    with Image.open(tmp_path / "train" / "a" / "3.jpg") as original:
        (tmp_path / place / "copy.jpg").write_bytes(copied(original, how))
    report = examine(tmp_path)
    assert found(report) == {finding: sorted([f"{place}/copy.jpg", "train/a/3.jpg"])}
    assert not report.blocks


def test_a_copy_under_another_label_and_in_another_split_is_both(tmp_path):
    write_photos(tmp_path)
    with Image.open(tmp_path / "train" / "a" / "3.jpg") as original:
        (tmp_path / "val" / "b" / "copy.jpg").write_bytes(copied(original, "resized"))
    both = ["train/a/3.jpg", "val/b/copy.jpg"]
    assert found(examine(tmp_path)) == {"warning near-split-leak": both, "warning near-label-conflict": both}


def test_sets_say_which_images_belong_together(tmp_path):
    write_photos(tmp_path)
    for number in (2, 5):
        with Image.open(tmp_path / "train" / "a" / f"{number}.jpg") as original:
            (tmp_path / "test" / "a" / f"copy {number}.jpg").write_bytes(copied(original, "resized"))
    (leak,) = examine(tmp_path).findings
    assert {frozenset(path.name for path in members) for members in leak.sets} == {
        frozenset({"2.jpg", "copy 2.jpg"}),
        frozenset({"5.jpg", "copy 5.jpg"}),
    }
    assert sorted(leak.paths) == sorted(path for members in leak.sets for path in members)


@pytest.mark.parametrize("level", [0, 127, 255])
def test_images_that_show_nothing_are_named_and_are_not_each_others_copies(tmp_path, level):
    write_photos(tmp_path)
    rng = np.random.default_rng(level)
    for name, place in {"one": "train/a", "two": "test/b"}.items():
        grain = np.clip(level + rng.normal(0, 2, (120, 160, 3)), 0, 255).astype(np.uint8)
        (tmp_path / place / f"{name}.jpg").write_bytes(encoded(Image.fromarray(grain), "JPEG", quality=90))
    assert found(examine(tmp_path)) == {"warning near-empty": ["test/b/two.jpg", "train/a/one.jpg"]}


def test_a_dim_photo_is_not_empty(tmp_path):
    write_photos(tmp_path)
    dim = Image.fromarray((np.asarray(photo(77)) * 0.15).astype(np.uint8))
    (tmp_path / "train" / "a" / "dim.png").write_bytes(encoded(dim, "PNG"))
    assert found(examine(tmp_path)) == {}


@pytest.mark.parametrize("scale", [1, 16])
def test_deep_images_are_named_and_are_not_empty(tmp_path, scale):
    """Read by their high byte, they are black: empty, and copies of each other."""
    for split, count in {"train": 6, "val": 2, "test": 2}.items():
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            for index in range(count):
                levels = np.asarray(photo(len(split) * 100 + ord(name) * 1000 + index)).astype(np.uint16)
                (tmp_path / split / name / f"{index}.png").write_bytes(png(levels * scale, colour_type=2))
    report = examine(tmp_path)
    assert [(item.severity, item.code) for item in report.findings] == [("info", "deep-image")]
    assert len(report.findings[0].paths) == 20
    top = 256 * scale - 1
    assert report.findings[0].message == (
        f"20 images have more than 8 bits a sample: their values lie in 0..{top} and are read over that range"
    )


def test_every_finding_has_a_remedy():
    assert {name for name, remedy in REMEDIES.items() if not remedy} == {"note"}
    assert set(BLOCKING) < set(REMEDIES)
    assert {f"{kind}-shortcut" for kind in KINDS} < set(REMEDIES)
    assert {f"{kind}-shortcut" for kind in KINDS} == {name for name in REMEDIES if name.endswith("-shortcut")}


@pytest.mark.parametrize("kind", KINDS)
def test_a_class_that_can_be_told_without_the_picture(tmp_path, kind):
    report = examine(write_given_away(tmp_path, kind))
    shortcuts = [item for item in report.findings if item.code.endswith("-shortcut")]
    assert [(item.severity, item.code) for item in shortcuts] == [("warning", f"{kind}-shortcut")]
    assert re.search(r"finds \d+% of its images, and takes \d+% of the others for it", shortcuts[0].message)
    assert "by chance 50%" in shortcuts[0].message
    assert not report.blocks


def test_classes_that_differ_in_nothing_but_their_photos(tmp_path):
    report = examine(write_given_away(tmp_path, "nothing"))
    assert {item.code for item in report.findings} == {"note"}


def test_progress(tmp_path):
    seen: list[tuple[int, int]] = []
    examine(write_healthy(tmp_path), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 20) for done in range(1, 21)]


def test_real_images_are_sound(tmp_path, monkeypatch):
    """Handwriting: nothing is suspected that is not there."""
    few_digits(monkeypatch, 300)
    write_digits(tmp_path, side=32)
    assert {item.code for item in examine(tmp_path).findings} == {"note"}

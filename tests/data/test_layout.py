"""Layouts that can be read in two ways: each is named, and those that would train on test images stop a run."""

from __future__ import annotations

import shutil

import pytest

from tests.data.images import write_classes, write_image
from tests.data.scans import error, reasons, write_csv
from tl_kit.data.findings import BLOCKING
from tl_kit.data.scan import scan
from tl_kit.diagnosis.examine import examine
from tl_kit.diagnosis.split_checks import check_discipline, doubts, known_faults
from tl_kit.errors import DataError


def codes(path) -> dict[str, str]:
    """Severity by name of what is wrong, other than counts and copies."""
    found = known_faults(scan(path))
    return {item.code: item.severity for item in found if item.code not in ("class-missing", "duplicate")}


def tree(root, layout: dict[str, int], *, seed: int = 0) -> None:
    for number, (folder, count) in enumerate(layout.items(), start=seed):
        for index in range(count):
            write_image(root / folder / f"{index}.png", 100 * number + index)


@pytest.mark.parametrize(
    "layout",
    [
        {"cat/train": 4, "cat/test": 2, "dog/train": 4, "dog/test": 2},
        {"cat/Training": 4, "cat/Validation": 2, "dog/Training": 4, "dog/Validation": 2},
        {"cat/images/train": 4, "cat/images/test": 2, "dog/images/train": 4, "dog/images/test": 2},
        {"cat/train": 4, "cat/test": 2, "dog": 4},
        {"cat/test": 2, "cat": 4, "dog": 4},
        {"cat/train": 4, "dog/test": 2, "dog": 4},
        {"train/cat": 4, "train/dog": 4, "train/dog/test": 2, "val/cat": 2, "val/dog": 2},
    ],
)
def test_a_class_above_its_splits_stops_a_run(tmp_path, layout):
    tree(tmp_path, layout)
    assert codes(tmp_path) == {"class-above-split": "error"}
    with pytest.raises(DataError, match=r"class-above-split: .*train/cat, test/cat.*--allow class-above-split$"):
        check_discipline(scan(tmp_path))
    with pytest.raises(DataError, match="class-above-split"):
        check_discipline(scan(tmp_path), pooled=True)
    (line,) = check_discipline(scan(tmp_path), allow=["class-above-split"])
    assert line.startswith("allowed: class-above-split")
    assert examine(tmp_path).blocks


@pytest.mark.parametrize(
    "layout",
    [
        {"cat/train": 4, "dog/train": 4},
        {"cat": 4, "dog": 4},
        {"train/cat/train": 4, "train/dog/train": 4, "val/cat": 2, "val/dog": 2},
        {"cat/trains": 4, "cat/tests": 2, "dog/trains": 4, "dog/tests": 2},
        {"brain_ill/T1": 4, "brain_ill/T2": 4, "brain_healthy/T1": 4, "brain_healthy/T2": 4},
        {"east/a": 4, "west/a": 4},
        {"valve_open/cam1": 4, "valve_closed/cam1": 4},
        {"rain/day": 4, "drain/day": 4},
        {"test_ok/2021": 4, "test_failed/2021": 4},
        {"train_high_speed/a": 4, "train_freight/a": 4},
        {"trained/day": 4, "tested/night": 4},
        {"trained": 4, "tested": 4},
    ],
)
def test_where_no_split_is_mixed_nothing_stops(tmp_path, layout):
    tree(tmp_path, layout)
    assert "error" not in codes(tmp_path).values()


def test_splits_in_the_paths_of_a_csv_without_the_column(tmp_path):
    tree(tmp_path, {"train/cat": 4, "train/dog": 4, "test/cat": 2, "test/dog": 2})
    files = [file.relative_to(tmp_path) for file in sorted(tmp_path.rglob("*.png"))]
    rows = [f"{file},{file.parts[1]}" for file in files]
    file = write_csv(tmp_path, "path,label\n" + "\n".join(rows))
    assert codes(file) == {"class-above-split": "error"}
    with pytest.raises(DataError, match="has no split column"):
        check_discipline(scan(file))
    with_split = [f"{row},{path.parts[0].replace('test', 'val')}" for row, path in zip(rows, files, strict=True)]
    assert codes(write_csv(tmp_path, "path,label,split\n" + "\n".join(with_split))) == {}
    assert codes(write_csv(tmp_path, "path,label\n" + "\n".join(rows[4:]))) == {}  # train alone


def test_a_folder_that_all_paths_share_is_no_split(tmp_path):
    tree(tmp_path / "dev" / "project", {"cat": 4, "dog": 4})
    rows = [f"{file},{file.parent.name}" for file in sorted(tmp_path.rglob("*.png"))]
    assert codes(write_csv(tmp_path, "path,label\n" + "\n".join(rows))) == {}


@pytest.mark.parametrize(
    "layout",
    [
        {"train/cat": 4, "train/dog": 4, "cat": 4, "dog": 4},
        {"bus": 4, "car": 4, "train/steam": 4, "train/electric": 4},
        {"cat": 4, "dog": 4, "test/cat": 2, "test/dog": 2},
        {"cat": 4, "dog": 4, "Validation/cat": 2, "Validation/dog": 2},
        {"train/cat": 4, "train/dog": 4, "eval/cat": 2, "eval/dog": 2},
        {"traning/cat": 4, "traning/dog": 4, "vaild/cat": 2, "vaild/dog": 2},
        {"01_train/cat": 4, "01_train/dog": 4, "02_test/cat": 2, "02_test/dog": 2},
        {"Train-A/cat": 4, "Train-A/dog": 4, "Train-B/cat": 2, "Train-B/dog": 2, "evaluation/dog": 2},
    ],
)
def test_a_split_or_a_class_stops_a_run(tmp_path, layout):
    tree(tmp_path, layout)
    found = codes(tmp_path)
    assert found.pop("split-or-class") == "error"
    assert set(found) <= {"odd-name"}
    with pytest.raises(DataError, match="split-or-class"):
        check_discipline(scan(tmp_path))
    assert check_discipline(scan(tmp_path), allow=["split-or-class"])
    assert "split-or-class" in BLOCKING


def test_what_lies_beside_the_splits_is_left_out_without_a_fault(tmp_path):
    tree(tmp_path, {"train/a": 4, "train/b": 4, "val/a": 2, "val/b": 2, "models/net": 1, "eval/a": 2})
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("text")
    assert codes(tmp_path) == {}
    assert reasons(scan(tmp_path))["eval"].endswith("rename it to val or test if it is one")
    shutil.rmtree(tmp_path / "val")
    shutil.rmtree(tmp_path / "models")
    shutil.rmtree(tmp_path / "eval")
    assert codes(tmp_path) == {}


def test_flat_folders_named_as_splits(tmp_path):
    tree(tmp_path, {"bus": 4, "car": 4, "train": 4})
    assert codes(tmp_path) == {}
    tree(tmp_path, {"test": 4}, seed=50)
    assert codes(tmp_path) == {"odd-name": "warning"}
    rows = [f"{file},{file.parent.name}" for file in sorted(tmp_path.rglob("*.png"))]
    assert codes(write_csv(tmp_path, "path,label\n" + "\n".join(rows))) == {"odd-name": "warning"}


def test_classes_inside_of_classes_are_named(tmp_path):
    tree(tmp_path, {"animals/cat": 4, "animals/dog": 4, "vehicles/bus": 4, "vehicles/car": 4})
    assert codes(tmp_path) == {"nested-classes": "warning"}
    (text,) = doubts(scan(tmp_path))
    assert all(name in text for name in ("animals", "'cat', 'dog'"))
    assert check_discipline(scan(tmp_path)) == []


def test_a_class_inside_of_another_is_named(tmp_path):
    tree(tmp_path, {"cat": 4, "cat/dog": 4, "dog": 4})
    (text,) = doubts(scan(tmp_path))
    assert "'cat' holds a folder named as another class, 'dog'" in text


@pytest.mark.parametrize(
    "layout",
    [
        {"cat/2024": 4, "cat/2025": 4, "dog/2024": 4, "dog/2025": 4},
        {"cat/a": 4, "cat/b": 4, "dog": 4},
        {"cat/images": 4, "dog/images": 4},
    ],
)
def test_other_folders_inside_of_classes_are_no_more_than_information(tmp_path, layout):
    tree(tmp_path, layout)
    assert set(codes(tmp_path).values()) <= {"info"}
    assert doubts(scan(tmp_path)) == []


@pytest.mark.parametrize("beside", [[], ["__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini", "README.txt"]])
@pytest.mark.parametrize("depth", ["imgs", "archive/data set"])
def test_a_folder_that_unpacking_left_is_stepped_into(tmp_path, beside, depth):
    write_classes(tmp_path / depth, {"a": 4, "b": 4})
    for name in beside:
        write_image(tmp_path / name / "._a.png", 5) if name == "__MACOSX" else (tmp_path / name).write_text("x")
    manifest = scan(tmp_path)
    assert manifest.classes == ("a", "b")
    assert manifest.root == tmp_path
    assert manifest.notes[0] == f"{tmp_path} holds nothing but {depth}/, which is read in its place"
    assert set(reasons(manifest).values()) <= {"hidden", "stray file not inside a class folder"}


def test_a_wrapper_around_splits_and_inside_of_splits(tmp_path):
    for seed, split in enumerate(("training_set", "test_set")):
        write_classes(tmp_path / "archive" / split / split, {"a": 4, "b": 4}, seed=seed)
    manifest = scan(tmp_path)
    assert manifest.classes == ("a", "b")
    assert manifest.counts()["test"] == {"a": 4, "b": 4}


def test_one_class_folder_is_no_wrapper(tmp_path):
    write_classes(tmp_path, {"a": 4})
    assert "only one class has images, 'a'" in error(tmp_path)
    write_image(tmp_path / "a" / "2024" / "x.png", 7)
    assert scan(tmp_path, trainable=False).classes == ("a",)
    write_classes(tmp_path / "deep" / "er", {"a": 4, "b": 4})
    assert scan(tmp_path).classes == ("a", "deep")


@pytest.mark.parametrize("layout", [{"images/cat": 4, "images/dog": 4}, {"train/images/cat": 4, "train/images/dog": 4}])
def test_classes_one_folder_too_deep_are_named(tmp_path, layout):
    tree(tmp_path, layout)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "a.xml").write_text("<x/>")
    assert "'images', and holds the folders 'cat', 'dog': if these are the classes" in error(tmp_path)


@pytest.mark.parametrize(
    ("name", "data"), [("photos.7z", b""), ("photos.rar", b"Rar!"), ("photos", b"Rar!"), ("a.tar.zst", b"")]
)
def test_archives_that_are_not_read(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    assert f"{name} is an archive that is not read: unpack it, or pack it as .zip or .tar" in error(tmp_path / name)
    assert f"holds 1 files but no folders: {name} is an archive" in error(tmp_path)


def test_tables_and_stores(tmp_path):
    for name, what in (("labels.xlsx", "save it as CSV UTF-8"), ("data.h5", "store of arrays")):
        (tmp_path / name).write_bytes(b"x")
        assert what in error(tmp_path / name)

"""Class names: one form of Unicode, wherever they come from, and names that cannot be told apart by looking."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from tests.data.images import write_classes, write_image
from tests.data.scans import error, write_csv
from tl_kit.class_names import looks_like, name_problems, nfc_names
from tl_kit.config import DataConfig
from tl_kit.data.listing import split_of
from tl_kit.data.scan import scan
from tl_kit.diagnosis.examine import examine
from tl_kit.diagnosis.split_checks import doubts, known_faults

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "été") for form in ("NFC", "NFD"))
HANGUL = tuple(unicodedata.normalize(form, "고양이") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(("composed", "decomposed"), [(COMPOSED, DECOMPOSED), HANGUL])
def test_two_forms_in_two_splits_are_one_class_and_paths_open_as_they_are(tmp_path, composed, decomposed):
    write_classes(tmp_path / "train", {composed: 3, "b": 3})
    write_classes(tmp_path / "val", {decomposed: 2, "b": 2}, seed=1)
    manifest = scan(tmp_path)
    assert set(manifest.classes) == {"b", composed}
    assert {s.path.parent.name for s in manifest.samples} == {"b", composed, decomposed}
    assert all(s.path.read_bytes() for s in manifest.samples)


def test_two_forms_in_one_folder_are_one_class_and_that_is_said(tmp_path):
    write_classes(tmp_path, {COMPOSED: 3, "b": 3})
    write_classes(tmp_path, {DECOMPOSED: 4}, seed=1)
    manifest = scan(tmp_path)
    assert manifest.classes == ("b", COMPOSED)
    assert sum(s.label == 1 for s in manifest.samples) == 7
    assert "two folders" in manifest.notes[0]
    assert COMPOSED in manifest.notes[0]
    assert any("two folders" in finding.message for finding in examine(tmp_path).findings if finding.code == "note")


def test_labels_groups_and_paths_of_a_csv(tmp_path):
    for index in range(4):
        write_image(tmp_path / DECOMPOSED / f"{DECOMPOSED}{index}.png", index)
    labels, groups = (COMPOSED, DECOMPOSED, "b", "b"), (COMPOSED, DECOMPOSED, "", "")
    rows = [f"{COMPOSED}/{COMPOSED}{i}.png,{labels[i]},{groups[i]}" for i in range(4)]
    manifest = scan(write_csv(tmp_path, "path,label,group\n" + "\n".join(rows)))
    assert manifest.classes == ("b", COMPOSED)
    assert len(manifest.samples) == 4
    assert {s.group for s in manifest.samples} == {COMPOSED, None}
    assert all(s.path.is_file() for s in manifest.samples)


def test_a_path_listed_in_both_forms_is_one_file(tmp_path):
    write_classes(tmp_path, {"b": 2})
    write_image(tmp_path / f"{DECOMPOSED}.png", 8)
    rows = [f"{COMPOSED}.png,a", f"{DECOMPOSED}.png,a", "b/0.png,b", "b/1.png,b"]
    manifest = scan(write_csv(tmp_path, "path,label\n" + "\n".join(rows)))
    assert len(manifest.samples) == 3
    assert [item.reason for item in manifest.exclusions] == ["line 3: listed in line 2 already"]


def test_a_group_pattern_finds_both_forms(tmp_path):
    for index, form in enumerate([COMPOSED, DECOMPOSED] * 2):
        write_image(tmp_path / "ab"[index % 2] / f"{form}_{index}.png", index)
    for form in (COMPOSED, DECOMPOSED):
        manifest = scan(tmp_path, DataConfig(group_pattern=f"^({form})_"), trainable=False)
        assert {sample.group for sample in manifest.samples} == {COMPOSED}


def test_names_of_old_checkpoints_are_composed_where_that_tells_them_apart():
    assert nfc_names([DECOMPOSED, "b"]) == (COMPOSED, "b")
    assert nfc_names([DECOMPOSED, COMPOSED]) == (DECOMPOSED, COMPOSED)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Cat", "cat"),
        ("7", "7.0"),
        ("7", "007"),
        ("7", "\uff17"),
        ("cat", "cat "),
        ("cat", " cat"),
        ("cat", "cat\u200b"),
        ("cat", "\ufeffcat"),
        ("cat", "c\u0430t"),
        ("big cat", "big\u00a0cat"),
        ("big cat", "big  cat"),
        ("t-shirt", "T_Shirt"),
        ("\uff43at", "cat"),
        ("straße", "STRASSE"),
        ("\ufb01sh", "fish"),
        ("7.0", "7."),
    ],
)
def test_names_that_look_alike_are_found_in_folders_and_csv(tmp_path, one, other):
    assert looks_like(one) == looks_like(other)
    write_classes(tmp_path / "images", {one: 4, other: 4, "else": 4})
    found = [item for item in known_faults(scan(tmp_path / "images")) if item.code == "alike-names"]
    assert len(found) == 1
    assert found[0].severity == "warning"
    if one == one.strip() and other == other.strip():
        rows = [f"images/{name}/{i}.png,{name}" for name in (one, other, "else") for i in range(4)]
        manifest = scan(write_csv(tmp_path, "path,label\n" + "\n".join(rows)))
        assert sum(item.code == "alike-names" for item in known_faults(manifest)) == 1
        assert any("look alike" in text for text in doubts(manifest))


def test_look_alikes_that_are_not_seen_are_spelled():
    ((_, text), *_) = name_problems(["cat", "c\u0430t"])
    assert "c\\u0430t" in text
    ((_, text), *_) = name_problems(["cat", "cat\u200b"])
    assert "cat\\u200b" in text


@pytest.mark.parametrize(
    "names",
    [
        ["cat", "dog", "10", "2", "t-shirt", "été", "Straße"],
        ["a", "ä", "á", "A1"],
        ["-7", "7"],
        ["C", "C#", "C++"],
        ["\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\u0915\u094d\u200d\u0937"],
        ["猫", "犬"],
        ["train", "bus", "car"],
        ["valid", "invalid"],
        ["1.5 mm", "1.6 mm"],
    ],
)
def test_names_that_are_in_order(names):
    assert name_problems(names) == []


@pytest.mark.parametrize(
    "name", ["NaN", "nan", "None", "null", "N/A", "<NA>", "cat ", "b\u200b", "a  b", "a\u00a0b", "test"]
)
def test_one_odd_name_is_a_finding(name):
    found = name_problems([name, "dog"])
    assert [code for code, _ in found] == ["odd-name"]


def test_labels_that_are_numbers():
    assert "written as decimals" in name_problems(["0.0", "1.0", "2.0"])[0][1]
    assert "measurements" in name_problems(["0.137", "1.25", "2.5"])[0][1]


def test_splits_that_disagree_by_look_alikes_are_named(tmp_path):
    write_classes(tmp_path / "train", {"Cat": 3, "b": 3})
    write_classes(tmp_path / "val", {"cat": 1, "b": 1}, seed=1)
    assert "'Cat', 'cat' look alike" in error(tmp_path)


@pytest.mark.parametrize(
    ("word", "split"),
    [
        ("Train", "train"),
        (" train", "train"),
        ("\ufefftrain", "train"),
        ("train\u200b", "train"),
        ("training_set", "train"),
        ("Test Images", "test"),
        ("val2017", "val"),
        ("dev", "val"),
        ("HOLDOUT", "test"),
        ("eval", None),
        ("trains", None),
        ("test 1", None),
        ("", None),
    ],
)
def test_words_for_splits(word, split):
    assert split_of(word) == split


@pytest.mark.parametrize("mark", ["\ufeff\ufeff", "\ufeff", "\u200b", " "])
def test_marks_before_the_header_and_in_the_split_column(tmp_path, mark):
    write_classes(tmp_path, {"x": 8})
    rows = [f"x/{i}.png,{i % 2},{mark}{('Train', 'val')[i // 4]}" for i in range(8)]
    manifest = scan(write_csv(tmp_path, f"{mark}path,label,split\n" + "\n".join(rows)))
    assert {split: sum(table.values()) for split, table in manifest.counts().items()} == {"train": 4, "val": 4}


def test_training_set_folders(tmp_path: Path):
    write_classes(tmp_path / "training_set", {"a": 3, "b": 3})
    write_classes(tmp_path / "test_set", {"a": 2, "b": 2}, seed=1)
    assert scan(tmp_path).counts()["test"] == {"a": 2, "b": 2}


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["hat", "hat,red", "red"], "1 class is made of names that others have too ('hat,red')"),
        (["a|b", "b|c", "a|c"], "3 classes are made of names that others have too"),
        (['["hat", "red"]', '["hat"]'], "2 classes are written as a list"),
        (["(1, 2)", "3"], "1 class is written as a list"),
    ],
)
def test_several_labels_of_an_image_are_told(names: list[str], said: str) -> None:
    ((code, text),) = name_problems(names)
    assert code == "odd-name"
    assert text.startswith(said)


@pytest.mark.parametrize(
    "names",
    [
        ["rock, smooth", "sand, fine"],
        ["[a", "b]"],
        ["a;b", "c"],
        ["(x)", "y"],
        ["New York, New York", "Rome"],
        ["a,a", "b"],
    ],
)
def test_signs_in_names_are_no_lists(names: list[str]) -> None:
    assert name_problems(names) == []

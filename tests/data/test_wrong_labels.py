"""Forms of data sets that would give images wrong labels without a word: each is an error or a note."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tl_kit.config import DataConfig, DecodeConfig
from tl_kit.data.forms.reading import list_data
from tl_kit.data.forms.remote import hidden_login
from tl_kit.data.listing import Listing
from tl_kit.errors import DataError


def image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (len(path.name) % 256, 9, 9)).save(path)
    return path


def listed(path: Path, **options: Any) -> Listing:
    return list_data(path, DataConfig(**options), DecodeConfig())


def labels(listing: Listing) -> dict[str, str]:
    return {candidate.path.name: candidate.label for candidate in listing.candidates}


def pairs(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir()
    for key in sorted({name.partition(".")[0] for name in files if name[0].isdigit()}):
        image(folder / f"{key}.jpg")
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def coco(folder: Path, *, categories: list[tuple[int, str]], images: list[tuple[int, str]]) -> Path:
    for _, name in images:
        image(folder / name)
    content = {
        "images": [{"id": number, "file_name": name} for number, name in images],
        "categories": [{"id": number, "name": name} for number, name in categories],
        "annotations": [{"image_id": images[0][0], "category_id": categories[0][0]}],
    }
    (folder / "all.json").write_text(json.dumps(content))
    return folder / "all.json"


def test_a_label_of_another_ending_is_not_the_images(tmp_path: Path) -> None:
    files = {"1.cls": "dress", "1.seg.cls": "blob", "2.cls": "hat", "2.meta.json": '{"label": "studio"}'}
    assert labels(listed(pairs(tmp_path / "a", files))) == {"1.jpg": "dress", "2.jpg": "hat"}


def test_minus_one_is_no_class(tmp_path: Path) -> None:
    found = listed(pairs(tmp_path / "a", {"1.cls": "0", "2.cls": "1", "3.cls": "-1"}))
    assert labels(found) == {"1.jpg": "0", "2.jpg": "1"}
    assert any("no label" in exclusion.reason for exclusion in found.exclusions)


@pytest.mark.parametrize(("names", "text"), [("dress\n\nhat", "an empty line"), ("crane\nbird\ncrane\n", "two lines")])
def test_names_of_indices_are_one_a_line(tmp_path: Path, names: str, text: str) -> None:
    with pytest.raises(DataError, match=text):
        listed(pairs(tmp_path / "a", {"1.cls": "0", "2.cls": "2", "classes.txt": names}))


def test_an_unknown_split_is_not_passed_over(tmp_path: Path) -> None:
    entry = {"1.json": '{"label": "a", "split": "fold3"}', "2.cls": "b"}
    with pytest.raises(DataError, match="unknown split 'fold3'"):
        listed(pairs(tmp_path / "a", entry))


def test_a_folder_named_test_makes_no_test_split_of_pairs_in_it(tmp_path: Path) -> None:
    (tmp_path / "test").mkdir()
    found = listed(pairs(tmp_path / "test" / "pairs", {"1.cls": "a", "2.cls": "b"}))
    assert {candidate.split for candidate in found.candidates} == {None}


def test_the_column_that_is_given_counts(tmp_path: Path) -> None:
    files = {"1.cls": "dress", "1.json": '{"color": "red"}', "2.cls": "hat", "2.json": '{"color": "blue"}'}
    folder = pairs(tmp_path / "a", files)
    assert labels(listed(folder, label_column="color")) == {"1.jpg": "red", "2.jpg": "blue"}


def test_one_id_twice_leaves_labels_unknown(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="two categories have the id 1"):
        listed(coco(tmp_path / "a", categories=[(1, "dress"), (2, "hat"), (1, "shoes")], images=[(1, "x.jpg")]))
    with pytest.raises(DataError, match="two images have the id 1"):
        listed(coco(tmp_path / "b", categories=[(1, "dress")], images=[(1, "x.jpg"), (1, "y.jpg")]))


def test_an_export_in_annotations_is_read_or_named(tmp_path: Path) -> None:
    for name in ("train2017/1.jpg", "val2017/2.jpg"):
        image(tmp_path / name)
    where = tmp_path / "annotations"
    where.mkdir()
    content = {"images": [], "categories": [], "annotations": []}
    (where / "all.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="give its path"):
        listed(tmp_path)


def test_a_table_beside_class_folders_is_told_of(tmp_path: Path) -> None:
    for name in ("red/1.jpg", "blue/2.jpg"):
        image(tmp_path / name)
    (tmp_path / "train.csv").write_text("image,label\nred/1.jpg,dress\nblue/2.jpg,hat\n")
    found = listed(tmp_path)
    assert set(labels(found).values()) == {"red", "blue"}
    assert [note for note in found.notes if "train.csv" in note]


def test_annotators_who_disagree_and_images_of_another_folder(tmp_path: Path) -> None:
    image(tmp_path / "b" / "1.jpg")

    def task(name: str, *choices: str) -> dict[str, object]:
        results = [{"result": [{"type": "choices", "value": {"choices": [each]}}]} for each in choices]
        return {"data": {"image": name}, "annotations": results}

    export = tmp_path / "tasks.json"
    export.write_text(json.dumps([task("b/1.jpg", "dress", "hat")]))
    with pytest.raises(DataError, match="several classes"):
        listed(export)
    export.write_text(json.dumps([task("a/1.jpg", "dress")]))
    assert [note for note in listed(export).notes if "other folders" in note]
    export.write_text(json.dumps([task("a/1.jpg", "dress"), task("b/1.jpg", "hat")]))
    found = listed(export)
    assert labels(found) == {"1.jpg": "hat"}
    assert [each.reason for each in found.exclusions] == ["no such file"]


def test_a_password_with_an_at_sign_is_hidden_whole() -> None:
    assert hidden_login("https://me:p@ssword@host/a.zip?key=1") == "https://host/a.zip"

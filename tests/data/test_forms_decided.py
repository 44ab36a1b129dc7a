"""Forms of data in which labels, paths or splits may be read in two ways: decided once for the set, or an error."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.data.packing import tar
from tests.data.test_wrong_labels import image, labels, listed
from tl_kit.data.forms.image_cells import sole_holder
from tl_kit.data.layout import layout_faults
from tl_kit.errors import DataError


def refused(path: Path, text: str, **options: object) -> None:
    with pytest.raises(DataError, match=text):
        listed(path, **options)


def pairs(file: Path, texts: Mapping[str, str | bytes]) -> Path:
    """A shard with an image for each key of these files."""
    picture = image(file.with_suffix(".jpg"))
    members = [(f"{key}.jpg", picture.read_bytes()) for key in dict.fromkeys(name[0] for name in texts)]
    picture.unlink()
    members += [(name, text if isinstance(text, bytes) else text.encode()) for name, text in texts.items()]
    return tar(file, members)


# Pairs: one source of labels for the whole set.


def test_labels_come_from_one_source_that_the_whole_set_has(tmp_path: Path) -> None:
    files = {"1.json": '{"label": "cat", "class": "x"}', "2.json": '{"label": "dog", "class": "x"}'}
    assert labels(listed(pairs(tmp_path / "a.tar", files))) == {"1.jpg": "cat", "2.jpg": "dog"}
    assert labels(listed(tmp_path / "a.tar", label_column="class")) == {"1.jpg": "x", "2.jpg": "x"}
    mixed = pairs(tmp_path / "b.tar", {"1.json": '{"label": "cat"}', "2.json": '{"class": "dog"}'})
    refused(mixed, r"others in the key 'class' .*2\.jpg\): name .* --label-column label or class")
    mixed = pairs(tmp_path / "c.tar", {"1.cls": "cat", "2.json": '{"label": "dog"}'})
    refused(mixed, r"their class in \.cls files, others in the key 'label' .* --label-column cls or label")
    assert labels(listed(mixed, label_column="cls")) == {"1.jpg": "cat"}, "what has none is left out and listed"


def test_sources_that_disagree_are_an_error_and_numbers_of_names_are_not(tmp_path: Path) -> None:
    files = {"1.cls": "0", "1.json": '{"label": "cat"}', "2.cls": "1", "2.json": '{"label": "dog"}'}
    assert labels(listed(pairs(tmp_path / "a.tar", files))) == {"1.jpg": "0", "2.jpg": "1"}
    assert labels(listed(tmp_path / "a.tar", label_column="Label")) == {"1.jpg": "cat", "2.jpg": "dog"}
    more = {**files, "3.cls": "1", "3.json": '{"label": "cat"}'}
    refused(pairs(tmp_path / "b.tar", more), r"disagree on the classes: '1' goes with 'dog' and with 'cat' \(3\.jpg\)")
    assert labels(listed(tmp_path / "b.tar", label_column=".cls"))["3.jpg"] == "1"
    alike = {"1.json": '{"class": "a", "category": "u"}', "2.json": '{"class": "a", "category": "v"}'}
    refused(pairs(tmp_path / "c.tar", alike), r"the key 'class' .* and the key 'category' .* disagree")
    refused(tmp_path / "c.tar", "has a label 'kind', as --label-column has it; there are", label_column="kind")


def test_texts_are_labels_where_nothing_else_is(tmp_path: Path) -> None:
    files = {"1.cls": "cat", "1.txt": b"\xff\xfe", "2.cls": "dog", "2.txt": "a dog, asleep"}  # captions, one in UTF-16
    assert labels(listed(pairs(tmp_path / "a.tar", files))) == {"1.jpg": "cat", "2.jpg": "dog"}
    texts = pairs(tmp_path / "b.tar", {"1.txt": "cat", "2.txt": "dog"})
    assert labels(listed(texts)) == {"1.jpg": "cat", "2.jpg": "dog"}


def test_texts_beside_other_sources(tmp_path: Path) -> None:
    both = pairs(tmp_path / "a.tar", {"1.cls": "cat", "2.txt": "dog"})
    refused(both, r"their class in \.cls files, others in \.txt files \(2\.jpg\)")
    lists = {"1.json": '{"label": ["a"]}', "1.txt": "x", "2.json": '{"label": ["b"]}', "2.txt": "y"}
    refused(pairs(tmp_path / "b.tar", lists), "has several labels an image")
    texts = {"1.txt": b"\xff\xfe", "2.txt": "dog"}
    refused(pairs(tmp_path / "c.tar", texts), r"1\.txt is not UTF-8 text")
    empty = listed(pairs(tmp_path / "d.tar", {"1.cls": "cat", "2.cls": "", "3.cls": "dog", "2.txt": b"\xff\xfe"}))
    assert labels(empty) == {"1.jpg": "cat", "3.jpg": "dog"}
    assert [each.reason for each in empty.exclusions] == ["no label in .cls files"]


def test_an_unlabelled_image_is_said_so_by_the_source(tmp_path: Path) -> None:
    files = {"1.cls": "0", "2.cls": "-1", "3.cls": "1", "2.json": '{"label": "cat"}', "3.json": '{"label": "dog"}'}
    assert labels(listed(pairs(tmp_path / "a.tar", files))) == {"1.jpg": "0", "3.jpg": "1"}


def test_a_coarser_key_leaves_cls_its_place(tmp_path: Path) -> None:
    files = {f"{n}.cls": str(n) for n in range(3)} | {f"{n}.json": json.dumps({"label": "ab"[n > 1]}) for n in range(3)}
    assert labels(listed(pairs(tmp_path / "a.tar", files))) == {f"{n}.jpg": str(n) for n in range(3)}


@pytest.mark.parametrize("slashes", ["//", "/"])
def test_chained_addresses_show_no_login(slashes: str) -> None:
    with pytest.raises(DataError) as caught:
        listed(Path(f"zip://a::https:{slashes}me:secret@host.example/x.zip?sig=KEY"))
    text = str(caught.value)
    assert "secret" not in text
    assert "KEY" not in text
    assert "alone, https://host.example/x.zip," in text


def test_a_shard_name_of_two_splits_is_refused(tmp_path: Path) -> None:
    for name in ("train-of-test-0.tar", "val-0.tar"):
        pairs(tmp_path / name, {"1.cls": "a"})
    refused(tmp_path, "the name train-of-test-0.tar means two splits, train and test; rename the file")


# Parquet.


def table(file: Path, **columns: Any) -> Path:
    parquet.write_table(pa.table(columns), file)
    return file


def test_paths_of_another_machine_are_found_by_their_last_folders(tmp_path: Path) -> None:
    for name in ("imgs/a/1.jpg", "imgs/b/1.jpg"):
        image(tmp_path / name)
    away = [r"C:\else\imgs\a\1.jpg", r"C:\else\imgs\b\1.jpg"]
    texts = table(tmp_path / "t.parquet", path=away, label=["a", "b"])
    cells = [{"bytes": None, "path": path} for path in away]
    structs = table(tmp_path / "s.parquet", image=cells, label=["a", "b"])
    found = listed(texts)
    assert {each.path.relative_to(tmp_path).as_posix(): each.label for each in found.candidates} == {
        "imgs/a/1.jpg": "a",
        "imgs/b/1.jpg": "b",
    }
    held = listed(structs)
    assert [each.label for each in held.candidates] == ["a", "b"]
    assert [each.path.read_bytes() for each in held.candidates] == [(tmp_path / "imgs/a/1.jpg").read_bytes()] * 2
    image(tmp_path / "old" / "2.jpg")
    found = listed(table(tmp_path / "n.parquet", path=["/x/new/2.jpg", "/x/new/3.jpg"], label=["a", "b"]))
    assert [note for note in found.notes if "1 of 2 images lie in other folders than n.parquet says" in note]
    assert labels(found) == {"2.jpg": "a"}
    refused(table(tmp_path / "u.parquet", path=["/x/1.jpg"], label=["a"]), "may be .*: write the path")
    gone = table(tmp_path / "g.parquet", image=[{"bytes": None, "path": "/x/none.jpg"}], label=["a"])
    refused(gone, r"none of its 1 rows has an image; the first: no such file: /x/none\.jpg")


@pytest.mark.parametrize("form", ["paths.parquet", "cells.parquet", "coco.json", "tasks.json", "cvat.xml", "t.csv"])
def test_a_missing_file_is_never_replaced_by_one_of_another_folder(form: str, tmp_path: Path) -> None:
    """Of cats and dogs, ``cats/0.jpg`` is not there: ``dogs/0.jpg`` is no cat."""
    names = ["cats/0.jpg", "cats/1.jpg", "dogs/2.jpg"]
    for name in ("cats/1.jpg", "dogs/2.jpg", "dogs/0.jpg"):
        image(tmp_path / name)
    kinds = [name[:4] for name in names]
    file = tmp_path / form
    if form == "paths.parquet":
        table(file, path=names, label=kinds)
    elif form == "cells.parquet":
        table(file, image=[{"bytes": None, "path": name} for name in names], label=kinds)
    elif form == "coco.json":
        content = {
            "images": [{"id": number, "file_name": name} for number, name in enumerate(names)],
            "categories": [{"id": 1, "name": "cats"}, {"id": 2, "name": "dogs"}],
            "annotations": [{"image_id": at, "category_id": 1 + (kind == "dogs")} for at, kind in enumerate(kinds)],
        }
        file.write_text(json.dumps(content))
    elif form == "tasks.json":
        file.write_text(json.dumps([{"image": name, "choice": kind} for name, kind in zip(names, kinds, strict=True)]))
    elif form == "cvat.xml":
        rows = (f'<image name="{n}"><tag label="{k}"/></image>' for n, k in zip(names, kinds, strict=True))
        file.write_text(f"<annotations>{''.join(rows)}</annotations>")
    else:
        file.write_text("path,label\n" + "".join(f"{n},{k}\n" for n, k in zip(names, kinds, strict=True)))
    found = listed(file)
    assert [each.label for each in found.candidates] == ["cats", "dogs"]
    assert ["no such file" in each.reason or "does not exist" in each.reason for each in found.exclusions] == [True]


def test_a_lone_row_takes_no_file_of_a_folder_beside_its_own(tmp_path: Path) -> None:
    for name in ("cats/1.jpg", "dogs/0.jpg"):
        image(tmp_path / name)
    refused(table(tmp_path / "t.parquet", image=[{"path": "cats/0.jpg"}], label=["cats"]), "no such file: cats/0.jpg")


def test_digests_are_no_images(tmp_path: Path) -> None:
    names = [image(tmp_path / name).name for name in ("1.jpg", "2.jpg")]
    for other in (
        pa.array([b"0" * 16] * 2, pa.binary(16)),
        pa.array([b"md5", b"md6"]),
        pa.array([{"path": "x"}, {"path": "y"}]),
    ):
        file = table(tmp_path / "t.parquet", path=names, md5=other, label=["a", "b"])
        assert labels(listed(file)) == {"1.jpg": "a", "2.jpg": "b"}


@pytest.mark.parametrize("kind", [pa.large_string(), pa.dictionary(pa.int32(), pa.string()), pa.string()])
def test_texts_of_all_kinds_name_images_and_classes(kind: pa.DataType, tmp_path: Path) -> None:
    names = [image(tmp_path / name).name for name in ("1.jpg", "22.jpg")]
    file = table(tmp_path / "t.parquet", path=pa.array(names, kind), label=pa.array(["a", "b"], kind))
    assert labels(listed(file)) == {"1.jpg": "a", "22.jpg": "b"}
    assert labels(listed(table(file, id=[1, 22], label=pa.array(["a", "b"], kind)))) == {"1.jpg": "a", "22.jpg": "b"}


@pytest.mark.parametrize("kind", [pa.large_binary(), pa.binary(), pa.dictionary(pa.int8(), pa.binary())])
def test_bytes_of_all_kinds_are_images(kind: pa.DataType, tmp_path: Path) -> None:
    data = [image(tmp_path / name).read_bytes() for name in ("1.jpg", "22.jpg")]
    found = listed(table(tmp_path / "t.parquet", photo=pa.array(data, kind), label=["a", "b"]))
    assert [each.path.read_bytes() for each in found.candidates] == data


def test_a_table_without_images_or_labels_says_so(tmp_path: Path) -> None:
    data = image(tmp_path / "1.jpg").read_bytes()
    file = tmp_path / "t.parquet"
    refused(table(file, image=[[1, 2]], label=["a"]), "the column 'image' holds lists; an image is the bytes of an")
    refused(table(file, image=[1.5], label=["a"]), "holds values of the type double; .* --image-column")
    refused(table(file, image=pa.nulls(1), label=["a"]), "the column 'image' holds nothing")
    for values in (pa.nulls(2), pa.array([-1, None])):
        unlabelled = "none of its 2 rows has a label: the column 'label' is empty, or -1, .* --label-column"
        refused(table(file, image=[data, data], label=values), unlabelled)
        refused(table(file, path=["1.jpg", "1.jpg"], label=values), unlabelled)
    refused(table(file, image=pa.array([], pa.binary()), label=pa.array([], pa.string())), "has no rows")
    found = listed(table(file, path=["1.jpg", "1.jpg", "1.jpg"], label=["a", "a", None]))
    assert [each.reason for each in found.exclusions] == ["row 2: listed in row 1 already", "row 3: no label"]
    refused(table(file, path=["1.jpg", "1.jpg"], label=["a", "b"]), "row 2: 1.jpg is listed with another label")


# Splits in exports and tables.


def cvat(folder: Path, subsets: dict[str, str]) -> Path:
    rows = "".join(
        f'<image name="{image(folder / name).name}" subset="{subset}"><tag label="{name[0]}"/></image>'
        for name, subset in subsets.items()
    )
    (folder / "all.xml").write_text(f"<annotations>{rows}</annotations>")
    return folder / "all.xml"


def test_subsets_are_splits_by_their_names(tmp_path: Path) -> None:
    def splits(subsets: dict[str, str]) -> list[str | None]:
        return [each.split for each in listed(cvat(tmp_path, subsets)).candidates]

    assert splits({"a.jpg": "Train", "b.jpg": "validation", "c.jpg": "test_set"}) == ["train", "val", "test"]
    assert splits({"a.jpg": "default", "b.jpg": "default"}) == [None, None]
    assert splits({"a.jpg": "monday", "b.jpg": "friday"}) == [None, None]
    said = listed(tmp_path / "all.xml").notes
    assert any(
        "'friday', 'monday' of all.xml name no splits (train, val or test); their images are used" in one
        for one in said
    )
    refused(cvat(tmp_path, {"a.jpg": "train", "b.jpg": "friday"}), r"unknown split 'friday' \(use train, val or test\)")
    refused(cvat(tmp_path, {"a.jpg": "train", "b.jpg": ""}), "1 of its 2 images have no split, though others have one")


def test_exports_whose_images_lie_in_folders_of_splits_are_told_of(tmp_path: Path) -> None:
    """As in tables: nothing says that test images are to be trained on."""
    names = ["train/a/1.jpg", "train/b/2.jpg", "test/a/3.jpg"]
    content = {
        "images": [{"id": number, "file_name": name} for number, name in enumerate(names)],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [{"image_id": number, "category_id": 1} for number in range(3)],
    }
    (tmp_path / "coco.json").write_text(json.dumps(content))
    tasks = [{"data": {"image": name}, "annotations": [{"result": [{"value": {"choices": ["a"]}}]}]} for name in names]
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    data = image(tmp_path / names[0]).read_bytes()
    for name in names:
        image(tmp_path / name)
    table(tmp_path / "s.parquet", image=[{"bytes": data, "path": name} for name in names], label=["a"] * 3)
    tar(
        tmp_path / "s.tar",
        [(name.replace("jpg", end), b) for name in names for end, b in (("jpg", data), ("cls", b"a"))],
    )
    for form in ("coco.json", "tasks.json", "s.parquet", "s.tar"):
        (fault,) = layout_faults(listed(tmp_path / form).candidates, table=True)
        assert (fault.severity, fault.code) == ("error", "class-above-split"), form


@pytest.mark.parametrize("form", ["t.parquet", "tasks.json", "p.tar"])
def test_a_split_of_some_images_alone_is_an_error(form: str, tmp_path: Path) -> None:
    names = [image(tmp_path / name).name for name in ("1.jpg", "2.jpg")]
    table(tmp_path / "t.parquet", path=names, label=["a", "b"], split=["train", None])
    done = [{"result": [{"value": {"choices": ["a"]}}]}]
    tasks = [{"data": {"image": names[0], "split": "train"}, "annotations": done}]
    (tmp_path / "tasks.json").write_text(json.dumps([*tasks, {"data": {"image": names[1]}, "annotations": done}]))
    pairs(tmp_path / "p.tar", {"1.json": '{"label": "a", "split": "train"}', "2.json": '{"label": "b"}'})
    refused(tmp_path / form, "have no split, though others have one|name a split, others none")


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"image": pa.binary(), "filename": pa.string(), "label": pa.string()}, "image"),
        ({"jpg": pa.large_binary(), "path": pa.string()}, "jpg"),
        ({"photo": pa.binary(), "id": pa.int64()}, "photo"),
        ({"Photo": pa.struct({"bytes": pa.binary(), "path": pa.string()}), "path": pa.string()}, "Photo"),
        ({"image": pa.string(), "md5": pa.binary()}, None),
        ({"path": pa.string(), "uid": pa.binary(16)}, None),
        ({"path": pa.string(), "source": pa.struct({"path": pa.string(), "w": pa.int64()})}, None),
        ({"source": pa.struct({"path": pa.string(), "w": pa.int64()}), "kind": pa.string()}, "source"),
        ({"front": pa.binary(), "back": pa.binary()}, None),
        ({"path": pa.string()}, None),
    ],
)
def test_the_column_of_image_files_is_found(columns: dict[str, pa.DataType], expected: str | None) -> None:
    """Beside it may stand names of files; digests and records of where a file is from are no images."""
    assert sole_holder(pa.schema(columns)) == expected

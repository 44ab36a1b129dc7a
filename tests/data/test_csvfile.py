"""CSV files: columns, dialects, and mistakes by line."""

from __future__ import annotations

import pytest

from tests.data.images import write_classes, write_image
from tests.data.scans import error, row_by_row, write_csv
from tl_kit.config import DataConfig
from tl_kit.data.scan import scan
from tl_kit.errors import DataError


def test_csv_with_labels_only(tmp_path):
    write_classes(tmp_path / "images", {"a": 10, "b": 10})
    rows = [f"images/{name}/{index}.png,{name}" for index in range(10) for name in "ba"]
    file = write_csv(tmp_path, "path,label\n" + "\n".join(rows) + "\n")
    manifest = scan(file)
    assert manifest.root == file
    assert row_by_row(manifest) == row_by_row(scan(tmp_path / "images"))
    assert all(sample.path.is_absolute() for sample in manifest.samples)
    shuffled = write_csv(tmp_path, "path,label\n" + "\n".join(reversed(rows)), name="other.csv")
    assert scan(shuffled).samples == manifest.samples


def test_csv_with_splits_and_groups(tmp_path):
    write_classes(tmp_path, {"x": 8})
    rows = [f"x/{i}.png,{i % 2},{split},{'g' if i < 2 else ''}" for i, split in enumerate(["Train", "train"] * 2)]
    rows += ["x/4.png,0,valid,", "x/5.png,1,dev,", "x/6.png,0,TEST,", "x/7.png,1,holdout,h"]
    manifest = scan(write_csv(tmp_path, "path,label,split,group\n" + "\n".join(rows)))
    assert manifest.counts() == {"train": {"0": 2, "1": 2}, "val": {"0": 1, "1": 1}, "test": {"0": 1, "1": 1}}
    groups = {sample.path.name: sample.group for sample in manifest.samples}
    assert groups == {f"{i}.png": {0: "g", 1: "g", 7: "h"}.get(i) for i in range(8)}


def test_groups_are_kept_together(tmp_path):
    write_classes(tmp_path, {"x": 60})
    rows = [f"x/{i}.png,{i % 2},person {i // 6}" for i in range(60)]
    sides: dict[str | None, set[str]] = {}
    for sample in scan(write_csv(tmp_path, "path,label,group\n" + "\n".join(rows))).samples:
        sides.setdefault(sample.group, set()).add(sample.split)
    assert len(sides) == 10
    assert all(len(side) == 1 for side in sides.values())
    assert set().union(*sides.values()) == {"train", "val", "test"}


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_csv_dialects(tmp_path, delimiter, encoding):
    write_classes(tmp_path, {"x": 4})
    lines = [
        "Label,Path,width",
        "straße,x/0.png,8",
        '"a ""b"" c",x/1.png,8',
        "",
        " straße , x/2.png ,8",
        "b c,x/3.png,8",
    ]
    text = "\r\n".join(lines).replace(",", delimiter)
    assert scan(write_csv(tmp_path, text, encoding=encoding)).classes == ('a "b" c', "b c", "straße")


def test_csv_with_quoted_delimiters_and_absolute_paths(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    images = [write_image(tmp_path / "far, away" / f"{i}.png", i) for i in range(4)]
    text = "path,label\n" + "\n".join(f'"{image}","{i % 2}, or so"' for i, image in enumerate(images))
    manifest = scan(write_csv(tmp_path / "elsewhere", text))
    assert manifest.classes == ("0, or so", "1, or so")
    assert {sample.path for sample in manifest.samples} == set(images)


def test_csv_files_that_are_missing_or_listed_twice(tmp_path):
    write_classes(tmp_path, {"x": 4})
    rows = ["x/0.png,a", "x/1.png,b", "x/gone.png,a", "x,a", "x/2.png,a", "./x/2.png,a", "x/3.png,b"]
    manifest = scan(write_csv(tmp_path, "path,label\n" + "\n".join(rows)))
    found = {(item.path.name, item.reason) for item in manifest.exclusions}
    assert found == {
        ("gone.png", "line 4: no such file"),
        ("x", "line 5: is a folder"),
        ("2.png", "line 7: listed in line 6 already"),
    }
    assert len(manifest.samples) == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1 names no column path; there are none"),
        ("x/0.png,a\nx/1.png,b\n", "line 1 names no column path"),
        ("path,breed\nx/0.png,a\n", "names no column label; there are 'path', 'breed': name it with --label-column"),
        ("path,label,label\n", "names the column label twice"),
        ("image,file_name,label\n", "the column path may be 'image' or 'file_name': name it with --image-column"),
        ("image,Class,target\n", "the column label may be 'Class' or 'target': name it with --label-column"),
        ("path,label,spilt\nx/0.png,a,train\n", "'spilt'; rename it to 'split'"),
        ("path,label\nx/0.png\n", "line 2: 1 cells, but the header has 2"),
        ("path,label\n\nx/0.png,a\nx/1.png,b,c\n", "line 4: 3 cells"),
        ("path,label\nx/0.png,a\n,b\n", "line 3: no path"),
        ("path,label\nx/0.png, \n", "line 2: no label"),
        ("path,label,split\nx/0.png,a,train\nx/1.png,b,learning set\n", "line 3: unknown split 'learning set'"),
        (
            "path,label,split\nx/0.png,a,train\nx/1.png,b,\nx/2.png,b,\n",
            "line 3: no split, though other rows have one (2",
        ),
        (
            "path,label\nx/0.png,a\nx/../x/0.png,b\n",
            "line 3: x/../x/0.png is listed with another label in line 2",
        ),
        ('path,label\nx/0.png,"a\n', "after line 1"),
        ("path,label,split\nx/0.png,a,val\nx/1.png,b,val\n", "train has none"),
        ("path,label,split\nx/0.png,a,train\nx/1.png,b,train\nx/2.png,c,val\n", "train lacks 'c'; val lacks 'a', 'b'"),
        ("path,label\n", "no image was found"),
    ],
)
def test_csv_mistakes_name_their_line(tmp_path, text, message):
    write_classes(tmp_path, {"x": 4})
    assert message in error(write_csv(tmp_path, text))


def test_many_csv_mistakes_make_one_line(tmp_path):
    file = write_csv(tmp_path, "path,label\n" + "x\n" * 50)
    text = error(file)
    assert "line 2: " in text
    assert "line 4: " in text
    assert text.endswith("(and 47 more)")


def test_an_empty_split_column_is_no_split(tmp_path):
    write_classes(tmp_path, {"x": 10})
    rows = "\n".join(f"x/{i}.png,{i % 2}," for i in range(10))
    assert set(scan(write_csv(tmp_path, f"path,label,split\n{rows}")).counts()) == {"train", "val", "test"}


def test_csv_in_another_encoding(tmp_path):
    assert "UTF-8" in error(write_csv(tmp_path, "path,label\nx.png,straße\n", encoding="latin-1"))


@pytest.mark.parametrize(
    "header",
    ["image_path,class", "File Name,Target", "filepath,category", "IMAGE,Class-Name", "path,label,image", "id,label"],
)
def test_columns_as_people_name_them(tmp_path, header):
    write_classes(tmp_path, {"x": 20})
    extra = ",odd" * (header.count(",") - 1)
    rows = "".join(f"x/{i}.png,{'ab'[i % 2]}{extra}\n" for i in range(20))
    named = write_csv(tmp_path, f"{header}\n{rows}", name="named.csv")
    assert row_by_row(scan(named)) == row_by_row(scan(write_csv(tmp_path, f"path,label{',z' * bool(extra)}\n{rows}")))


def test_columns_by_option(tmp_path):
    write_classes(tmp_path, {"x": 20})
    rows = "".join(f"gone.png;x/{i}.png;{i};{'ab'[i % 2]}\n" for i in range(20))
    file = write_csv(tmp_path, f"image;thumb;label;Breed\n{rows}", encoding="utf-8-sig")
    manifest = scan(file, DataConfig(image_column="thumb", label_column="breed"))
    assert manifest.classes == ("a", "b")
    assert "images are named in the column 'thumb', classes in 'Breed'" in manifest.notes
    with pytest.raises(DataError, match="no column 'no', as --image-column has it; there are 'image', 'thumb'"):
        scan(file, DataConfig(image_column="no"))
    with pytest.raises(DataError, match="cannot name both"):
        scan(file, DataConfig(image_column="breed", label_column="Breed"))


def test_ids_are_stems_of_files(tmp_path):
    write_classes(tmp_path / "train", {"a": 10, "b": 10})
    for file in (tmp_path / "train").glob("*/*"):
        file.rename(tmp_path / "train" / f"{file.parent.name}{file.name}")
    (tmp_path / "train" / "a1.txt").write_text("no image")
    rows = "".join(f"{name}{i},{name}\n" for i in range(10) for name in "ab")
    manifest = scan(write_csv(tmp_path, f"id,target\n{rows}"))
    assert len(manifest.samples) == 20
    assert any(note.startswith("20 of 20 images were found by their names below") for note in manifest.notes)
    endings = rows.replace(",", ".png,")
    assert row_by_row(scan(write_csv(tmp_path, f"image,label\n{endings}", name="2.csv"))) == row_by_row(manifest)
    write_image(tmp_path / "test" / "a3.png", 1)
    assert "line 8: 'a3' may be test/a3.png, train/a3.png: write the path" in error(tmp_path / "labels.csv")

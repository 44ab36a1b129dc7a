"""Unused columns that hold splits stop a run, and those that may hold groups are named."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.data.images import write_classes
from tests.data.scans import write_csv
from tl_kit.data.forms.columns import find_columns
from tl_kit.data.forms.unused_columns import UnusedColumns
from tl_kit.data.manifest import Manifest
from tl_kit.data.scan import scan
from tl_kit.diagnosis.split_checks import check_discipline
from tl_kit.errors import DataError

IMAGES = 24


def table(tmp_path: Path, column: str, cells: list[Any], *, form: str = "csv") -> Path:
    """Two classes of images, and a column more: in text, in Parquet as paths or as bytes, in two shards, of the hub."""
    write_classes(tmp_path, {"x": IMAGES})
    rows = [(f"x/{i}.png", f"class {i % 2}", cells[i % len(cells)]) for i in range(IMAGES)]
    if form == "csv":
        lines = [f"{path},{label},{'' if cell is None else cell}" for path, label, cell in rows]
        return write_csv(tmp_path, f"path,label,{column}\n" + "\n".join(lines))
    paths, labels, others = map(list, zip(*rows, strict=True))
    images = [(tmp_path / path).read_bytes() for path in paths]
    if form == "hub":
        entry = datasets.Dataset.from_dict({"image": [{"bytes": each, "path": None} for each in images]})
        entry = entry.cast_column("image", datasets.Image()).add_column("label", labels).add_column(column, others)
        entry.save_to_disk(tmp_path / "hub")
        return tmp_path / "hub"
    other = pa.array(others)
    if isinstance(others[0], str):
        other = other.dictionary_encode()
    content = pa.table({"image": paths if form == "parquet" else images, "label": labels, column: other})
    if form != "shards":
        parquet.write_table(content, tmp_path / "table.parquet")
        return tmp_path / "table.parquet"
    (tmp_path / "shards").mkdir()
    for number in range(len(cells)):
        part = content.filter(pa.array([index % len(cells) == number for index in range(IMAGES)]))
        parquet.write_table(part, tmp_path / "shards" / f"{number}.parquet")
    return tmp_path / "shards"


def stopped(manifest: Manifest) -> str:
    with pytest.raises(DataError, match="unused-split") as found:
        check_discipline(manifest)
    return str(found.value)


@pytest.mark.parametrize("form", ["csv", "parquet", "bytes", "shards", "hub"])
@pytest.mark.parametrize(
    ("column", "cells", "advice"),
    [
        ("set", ["train", "test"], "rename it to 'split'"),
        ("usage", ["Training", None, "Validation"], "rename it to 'split'"),
        ("Is Test", ["0", "1"], "give a column 'split'"),
        ("is_training_image", [1, 0], "give a column 'split'"),
        ("is_test", [1.0, None], "give a column 'split'"),
    ],
)
def test_splits_under_another_name_stop_a_run(
    column: str, cells: list[Any], advice: str, form: str, tmp_path: Path
) -> None:
    manifest = scan(table(tmp_path, column, cells, form=form))
    message = stopped(manifest)
    assert f"the column '{column}' is not used, whose cells are " in message
    assert advice in message
    assert message.endswith("--allow unused-split")
    assert check_discipline(manifest, allow=["unused-split"])


@pytest.mark.parametrize("form", ["csv", "parquet", "bytes", "shards", "hub"])
@pytest.mark.parametrize(
    ("column", "cells", "told"),
    [
        ("patient_id", ["a", "b", "c"], "'patient_id' is not used: rename it to 'group'"),
        ("Subject", [1, 2], "'Subject' is not used: rename it to 'group'"),
        ("scene", [f"s{i}" for i in range(IMAGES // 2)], "'scene' is not used: rename it to 'group'"),
        ("partition", [0, 1, 2], "'partition' is not used: if it holds splits, call it 'split'"),
        ("valid", ["yes", "no"], "'valid' is not used, whose cells are 'no', 'yes': if it marks a split"),
    ],
)
def test_columns_that_may_be_meant_are_named(
    column: str, cells: list[Any], told: str, form: str, tmp_path: Path
) -> None:
    manifest = scan(table(tmp_path, column, cells, form=form))
    assert any(told in note for note in manifest.notes)
    check_discipline(manifest)


@pytest.mark.parametrize(
    ("column", "cells"),
    [
        ("set", ["train"]),
        ("set", ["train", "dev kit"]),
        ("colour", ["train", "brain"]),
        ("is_new", ["0", "1"]),
        ("animal", ["cat", "dog"]),
        ("patient_id", [f"p{i}" for i in range(IMAGES)]),
        ("subject", [None]),
    ],
)
def test_other_columns_are_none_of_them(column: str, cells: list[Any], tmp_path: Path) -> None:
    manifest = scan(table(tmp_path, column, cells))
    assert not any("is not used" in note and "call it" not in note for note in manifest.notes)
    check_discipline(manifest)


@pytest.mark.parametrize(("split", "stops"), [(("train", "val"), False), (("", ""), True)])
def test_a_split_column_that_is_filled_is_the_one(split: tuple[str, str], stops: bool, tmp_path: Path) -> None:
    write_classes(tmp_path, {"x": IMAGES})
    rows = [f"x/{i}.png,{i % 2},{split[i % 4 // 2]},{('train', 'test')[i % 2]}" for i in range(IMAGES)]
    manifest = scan(write_csv(tmp_path, "path,label,split,set\n" + "\n".join(rows)))
    if stops:
        assert "'set' is not used" in stopped(manifest)
    else:
        check_discipline(manifest)


def test_parquet_with_columns_of_one_name_and_with_blanks_is_read(tmp_path: Path) -> None:
    write_classes(tmp_path, {"x": 8})
    paths, labels = [f"x/{i}.png" for i in range(8)], [str(i % 2) for i in range(8)]
    nested = pa.array([[1, 2]] * 8)
    content = pa.Table.from_arrays(
        [pa.array(paths), pa.array(labels), *[pa.array(range(8))] * 3, nested],
        names=["path", "label", "a", "a", " pad ", "box"],
    )
    parquet.write_table(content, tmp_path / "table.parquet")
    assert len(scan(tmp_path / "table.parquet").samples) == 8


def test_columns_of_many_cells_are_not_kept() -> None:
    columns = find_columns(["path", "label", "caption", "case_id", "patient_id"], "t")
    unused = UnusedColumns(columns)
    for number in range(20_000):
        unused.add([None, None, f"text {number}", f"c{number}", f"p{number % 5000}"])
    assert unused.live == (4,)
    assert len(unused._cells[4].distinct) <= 65
    faults, (note,) = unused.told(splits_known=False)
    assert not faults
    assert "'patient_id' is not used" in note
    empty = UnusedColumns(columns)
    empty.add([None, None, math.nan, None, ""])
    assert empty.told(splits_known=False) == ([], [])

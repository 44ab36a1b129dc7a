"""Unused columns that hold splits stop a run, and those that may hold groups are named."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.data.images import write_classes
from tests.data.scans import error, write_csv
from tl_kit.data.scan import scan

IMAGES = 8


def table(tmp_path: Path, column: str, cells: list[str], *, form: str = "csv") -> Path:
    """Two classes of four images, and a column more."""
    write_classes(tmp_path, {"x": IMAGES})
    rows = [(f"x/{i}.png", f"class {i % 2}", cells[i % len(cells)]) for i in range(IMAGES)]
    if form == "csv":
        return write_csv(tmp_path, f"path,label,{column}\n" + "\n".join(map(",".join, rows)))
    paths, labels, others = zip(*rows, strict=True)
    content = pa.table({"path": paths, "label": labels, column: pa.array(others).dictionary_encode()})
    parquet.write_table(content, tmp_path / "table.parquet")
    return tmp_path / "table.parquet"


@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("column", "cells", "advice"),
    [
        ("set", ["train", "test"], "rename it to 'split' if that is meant"),
        ("usage", ["Training", "", "Validation"], "rename it to 'split' if that is meant"),
        ("Is Test", ["0", "1"], "give a column 'split'"),
        ("train", ["True", "False"], "give a column 'split'"),
    ],
)
def test_splits_under_another_name_stop_a_run(
    column: str, cells: list[str], advice: str, form: str, tmp_path: Path
) -> None:
    message = error(table(tmp_path, column, cells, form=form))
    assert f"names a column '{column}', whose cells are " in message
    assert advice in message


@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("column", "cells", "told"),
    [
        ("patient_id", ["a", "b", "c"], "'patient_id' is not used: rename it to 'group'"),
        ("Subject", ["1", "2"], "'Subject' is not used: rename it to 'group'"),
        ("partition", ["0", "1", "2"], "'partition' is not used: if it holds splits, call it 'split'"),
    ],
)
def test_columns_that_may_be_meant_are_named(
    column: str, cells: list[str], told: str, form: str, tmp_path: Path
) -> None:
    notes = scan(table(tmp_path, column, cells, form=form)).notes
    assert any(told in note for note in notes)


@pytest.mark.parametrize(
    ("column", "cells"),
    [
        ("set", ["train"]),
        ("set", ["train", "dev kit"]),
        ("colour", ["train", "brain"]),
        ("is_new", ["0", "1"]),
        ("patient_id", [f"p{i}" for i in range(IMAGES)]),
        ("subject", [""]),
    ],
)
def test_other_columns_are_none_of_them(column: str, cells: list[str], tmp_path: Path) -> None:
    notes = scan(table(tmp_path, column, cells)).notes
    assert not any("is not used" in note and "rename" in note for note in notes)


def test_a_table_with_a_split_column_may_have_another(tmp_path: Path) -> None:
    write_classes(tmp_path, {"x": IMAGES})
    rows = "\n".join(
        f"x/{i}.png,{i % 2},{'train' if i < 4 else 'val'},{('train', 'test')[i % 2]}" for i in range(IMAGES)
    )
    assert set(scan(write_csv(tmp_path, f"path,label,split,set\n{rows}")).counts()) == {"train", "val"}

"""Images that a table names or holds: a CSV file, or a Parquet file with paths or image files in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tl_kit.data.forms.columns import Columns, find_columns
from tl_kit.data.forms.image_cells import holds_files, image_of, paths_in, sole_holder
from tl_kit.data.forms.named_files import NamedFiles
from tl_kit.data.forms.text_table import TEXT_TABLES, open_table
from tl_kit.errors import DataError, ImageError, first_line
from tl_kit.inference.streaming.addresses import is_address
from tl_kit.inference.streaming.named import Named
from tl_kit.inference.streaming.parquet_rows import check_parquet

__all__ = ["TABLE_ENDINGS", "images_in_table"]

TABLE_ENDINGS = (*TEXT_TABLES, ".parquet")
_ROWS = 32  # that are in memory together


def images_in_table(file: Path, *, column: str | None, listed: Callable[[str], Named]) -> Iterator[Named]:
    """Every row's image, in order; the header is read at once.

    ``column``: that of the images, where it has no usual name. Paths are relative to the table's folder, and may be
    bare names or ids as in data sets. ``listed`` makes the item of an address. A row that names no image, or several,
    says so in its place. Raises DataError if the table cannot be read or has no such column.
    """
    by_ending = _of_parquet if file.name.lower().endswith(".parquet") else _of_text
    return by_ending(file, column, listed)


def _of_text(file: Path, column: str | None, listed: Callable[[str], Named]) -> Iterator[Named]:
    table = open_table(file, image=column, labelled=False)
    found = NamedFiles(file.parent)

    def rows() -> Iterator[Named]:
        problems: list[str] = []
        for row in table.rows(problems):
            yield from _faults(file, problems)
            yield _named(row.path, f"{file}: line {row.line}", found, listed)
        yield from _faults(file, problems)

    return rows()


def _faults(file: Path, problems: list[str]) -> Iterator[Named]:
    yield from (Named(str(file), ImageError(problem)) for problem in problems)
    problems.clear()


def _named(text: str, place: str, found: NamedFiles, listed: Callable[[str], Named]) -> Named:
    """The image that a cell names; ``place`` is the name of one that names none."""
    if not text:
        return Named(place, ImageError("no path"))
    if is_address(text) and not os.path.lexists(found.folder / text):
        return listed(text)
    path = found.find(text)
    return Named(text, ImageError(path)) if isinstance(path, str) else Named(str(path), path)


def _of_parquet(file: Path, column: str | None, listed: Callable[[str], Named]) -> Iterator[Named]:
    check_parquet(str(file))
    from pyarrow import ArrowException, parquet

    try:
        source = parquet.ParquetFile(str(file))
        schema = source.schema_arrow
    except (ArrowException, OSError) as error:
        raise DataError(f"{file}: cannot be read as Parquet ({first_line(error)[:80]})") from error
    name = _image_column(file, schema, column)
    found = NamedFiles(file.parent, lambda: paths_in(parquet.ParquetFile(str(file)), name))

    def rows() -> Iterator[Named]:
        number = 0
        try:
            for batch in source.iter_batches(batch_size=_ROWS, columns=[name]):
                for value in batch.column(0).to_pylist():
                    yield _held(value, file, number, found, listed)
                    number += 1
        except (ArrowException, OSError) as error:
            yield Named(str(file), ImageError(f"cannot be read after {number:,} rows: {first_line(error)[:80]}"))

    return rows()


def _image_column(file: Path, schema: Any, given: str | None) -> str:
    """The column of images: the one that is given, the only one that holds image files, or one of a usual name."""
    columns: Columns = find_columns(schema.names, str(file), image=given or sole_holder(schema), labelled=False)
    name = str(schema.names[columns.path])
    holds_files(schema, name, str(file))
    return name


def _held(value: Any, file: Path, number: int, found: NamedFiles, listed: Callable[[str], Named]) -> Named:
    """The image in one cell: a file's bytes, a path, or a pair of both of which either may be missing.

    A pair names a file as the machine called it where the table was written.
    """
    path, data = image_of(value)
    if data is not None:
        return Named(f"{file}/{path or number}", data)
    if path is None:
        return Named(f"{file}/{number}", ImageError("no image in this row"))
    if not isinstance(value, dict) or is_address(path):
        return _named(path, f"{file}/{number}", found, listed)
    place = found.moved(path)
    return Named(path, ImageError(place) if isinstance(place, str) else place)

"""Text tables: CSV files with commas, semicolons or tabs, row by row."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tl_kit.data.forms.columns import Columns, find_columns
from tl_kit.data.forms.unused_columns import UnusedColumns
from tl_kit.errors import DataError

__all__ = ["TEXT_TABLES", "TableRow", "TextTable", "open_table"]

TEXT_TABLES = (".csv", ".tsv")
_DELIMITERS = ",;\t|"
_SEPARATOR = re.compile(rf'"?sep=([{re.escape(_DELIMITERS)}])"?\s*', re.IGNORECASE)


@dataclass(frozen=True)
class TableRow:
    """One row: its line in the file, and its cells without blanks at the ends; "" for a column that is missing."""

    line: int
    path: str
    label: str
    split: str
    group: str


@dataclass(frozen=True)
class TextTable:
    """A table whose header has been read. ``delimiter`` separates its cells; the header is the ``header_line``-th."""

    file: Path
    columns: Columns
    delimiter: str
    header_line: int = 1

    def rows(self, problems: list[str], *, unused: UnusedColumns | None = None) -> Iterator[TableRow]:
        """The rows, read as they are asked for; empty ones are passed over.

        A row of the wrong length adds a line to ``problems``. ``unused`` gathers the cells of other columns.
        Raises DataError for what is no UTF-8 and for an open quotation mark.
        """
        columns, line = self.columns, 1
        with _reading(self.file, lambda: line), self.file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream, delimiter=self.delimiter, strict=True)
            for _ in range(self.header_line):
                next(reader, None)
            for cells in reader:
                line = reader.line_num
                if not any(cell.strip() for cell in cells):
                    continue
                if len(cells) != len(columns.names):
                    problems.append(f"line {line}: {len(cells)} cells, but the header has {len(columns.names)}")
                    continue
                if unused is not None:
                    unused.add(cells)
                places = (columns.path, columns.label, columns.split, columns.group)
                yield TableRow(line, *("" if place is None else cells[place].strip() for place in places))


def open_table(file: Path, *, image: str | None = None, label: str | None = None, labelled: bool = True) -> TextTable:
    """Read the header of a CSV file in UTF-8, with or without a byte order mark; the columns by :func:`find_columns`.

    Cells are separated by what the header has most of: commas, semicolons, tabs or vertical bars; or by what a line
    before it says ("sep=;", which Excel reads and some programs write). Raises DataError if
    the file cannot be read, and as :func:`find_columns` does.
    """
    with _reading(file, lambda: 1), file.open(newline="", encoding="utf-8-sig") as stream:
        said = _SEPARATOR.fullmatch(first := stream.readline())
        delimiter = said[1] if said else max(_DELIMITERS, key=first.count)
        if not said:
            stream.seek(0)
        header = next(csv.reader(stream, delimiter=delimiter, strict=True), [])
    line = 2 if said else 1
    columns = find_columns(header, f"{file}: line {line}", image=image, label=label, labelled=labelled)
    return TextTable(file, columns, delimiter, line)


@contextmanager
def _reading(file: Path, line: Callable[[], int]) -> Iterator[None]:
    """Turn what may go wrong with a text file into a DataError."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8 text; save it as 'CSV UTF-8'") from error
    except csv.Error as error:
        raise DataError(f"{file}: after line {line()}: {error}") from error
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from error

"""Table layout: columns side by side if they fit the terminal, else one record per row; no figure is ever broken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from tl_kit.cli.cells import fold, pad, shorten, width_of, wrap
from tl_kit.config import TableConfig

__all__ = ["MARKS", "layout"]

GAP = "  "
RULE, ELLIPSIS = "─", "…"  # the line below headings, and the mark for the omitted part of a name
PLAIN_RULE, PLAIN_ELLIPSIS = "-", "~"
MARKS = RULE + ELLIPSIS
NAME, WHOLE, FIGURE, PROSE = "l", "n", "r", "w"


@dataclass(frozen=True)
class _Column:
    name: str
    kind: str
    cells: list[str]

    @property
    def word(self) -> int:
        """The width of the heading's widest word; a heading may have several lines."""
        return max(map(width_of, self.name.split(" ")))

    @property
    def content(self) -> int:
        return max(map(width_of, self.cells), default=0)

    @property
    def most(self) -> int:
        """The width with every cell on one line."""
        return max(width_of(self.name), self.content)

    @property
    def least(self) -> int:
        """The smallest width at which the column is still readable."""
        bound = {NAME: TableConfig.name, PROSE: TableConfig.prose}.get(self.kind, self.content)
        return max(self.word, min(self.content, bound))


def layout(
    header: Sequence[str], rows: Sequence[Sequence[str]], align: str, width: int | None, *, plain: bool = False
) -> list[str]:
    """Lines of a table, at most ``width`` cells wide (None: any; at least 40), without spaces at their ends.

    ``align`` has a letter for each column: ``l`` for names, which may be shortened in the middle; ``n`` for names that
    users may type, which are never shortened; ``r`` for figures, aligned right and never shortened; ``w`` for
    sentences, which are wrapped at words. If names would be shorter than ``TableConfig.name`` cells, or would become
    equal, or if sentences would be narrower than ``TableConfig.prose``, each row becomes a record: a line for its first
    cell, and a line for each other non-empty cell, with its column's name. Records shorten nothing. ``plain``: ASCII
    characters only.
    """
    cells = [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in header]
    columns = [_Column(*parts) for parts in zip(header, align, cells, strict=True)]
    rule, ellipsis = (PLAIN_RULE, PLAIN_ELLIPSIS) if plain else (RULE, ELLIPSIS)
    if width is None:
        return _side_by_side(columns, [column.most for column in columns], rule)
    widths = _widths(columns, max(width, TableConfig.narrowest) - len(GAP) * (len(columns) - 1))
    if widths is not None:
        shown = [_shortened(column, size, ellipsis) for column, size in zip(columns, widths, strict=True)]
        fitting = [column for column in shown if column is not None]
        if len(fitting) == len(columns):
            return _side_by_side(fitting, widths, rule)
    return [line.rstrip(" ") for line in _records(columns, max(width, TableConfig.narrowest))]


def _widths(columns: Sequence[_Column], room: int) -> list[int] | None:
    """A width for each column, ``room`` in total; None if they do not fit.

    Space beyond the smallest widths is divided evenly among text columns that need it, and then among headings.
    """
    widths = [column.least for column in columns]
    left = room - sum(widths)
    if left < 0:
        return None
    wishes = [[max(c.content, c.word) if c.kind != FIGURE else 0 for c in columns], [c.most for c in columns]]
    for wish in wishes:
        while left and (short := [i for i, size in enumerate(widths) if size < wish[i]]):
            narrowest = min(short, key=lambda i: widths[i])
            widths[narrowest] += 1
            left -= 1
    return widths


def _shortened(column: _Column, width: int, ellipsis: str) -> _Column | None:
    """The column shortened to its width; None if its names would become equal."""
    if column.kind != NAME:
        return column
    cells = shorten(column.cells, width, ellipsis)
    return None if cells is None else _Column(column.name, column.kind, cells)


def _side_by_side(columns: Sequence[_Column], widths: Sequence[int], rule: str) -> list[str]:
    headings = [wrap(column.name, size) for column, size in zip(columns, widths, strict=True)]
    deepest = max(map(len, headings))
    lines = _lines(columns, widths, [[""] * (deepest - len(heading)) + heading for heading in headings])
    lines.append(rule * (sum(widths) + len(GAP) * (len(widths) - 1)))
    for row in zip(*(column.cells for column in columns), strict=True):
        parts = [
            wrap(cell, size) if column.kind == PROSE else [cell]
            for cell, column, size in zip(row, columns, widths, strict=True)
        ]
        lines += _lines(columns, widths, parts)
    return lines


def _lines(columns: Sequence[_Column], widths: Sequence[int], parts: Sequence[list[str]]) -> list[str]:
    """The lines of cells side by side; each cell may have several lines."""
    lines = []
    for row in zip_longest(*parts, fillvalue=""):
        cells = zip(row, columns, widths, strict=True)
        lines.append(GAP.join(pad(cell, size, right=column.kind == FIGURE) for cell, column, size in cells).rstrip(" "))
    return lines


def _records(columns: Sequence[_Column], width: int) -> list[str]:
    heads = 1  # columns on the first line: those without a name, or the first column
    while not columns[0].name and heads < len(columns) and not columns[heads].name:
        heads += 1
    titles, others = columns[:heads], columns[heads:]
    labels = max((width_of(column.name) for column in others), default=0)
    lines: list[str] = []
    for number in range(len(columns[0].cells)):
        if lines:
            lines.append("")
        lines += _title(titles, number, width)
        for column in others:
            if column.cells[number]:
                lines += _field(column, column.cells[number], labels, width)
    return lines


def _title(columns: Sequence[_Column], number: int, width: int) -> list[str]:
    text = GAP.join(column.cells[number] for column in columns if column.cells[number])
    text = f"{columns[0].name}: {text}" if columns[0].name else text
    return wrap(text, width)


def _field(column: _Column, cell: str, labels: int, width: int) -> list[str]:
    """One cell of a record: beside its column's name if there is enough space, otherwise below it."""
    indent = len(GAP) + (labels + len(GAP) if column.name else 0)
    room = width - indent
    if width_of(cell) <= room or (column.kind != FIGURE and room >= TableConfig.prose):
        first, *more = [cell] if column.kind == FIGURE else wrap(cell, room)
        label = GAP + (pad(column.name, labels, right=False) + GAP if column.name else "")
        return [label + first, *(" " * indent + line for line in more)]
    below = [cell] if column.kind == FIGURE else wrap(cell, width - 2 * len(GAP))
    names = fold(column.name, width - len(GAP)) if column.name else []
    return [*(GAP + name for name in names), *(2 * GAP + line for line in below)]

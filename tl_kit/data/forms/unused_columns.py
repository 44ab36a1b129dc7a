"""Unused columns of a table that seem to hold splits or groups: such tables would train on their own test images."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from tl_kit.class_names import visible
from tl_kit.data.forms.columns import Columns, plain
from tl_kit.data.listing import name_some, split_of
from tl_kit.errors import DataError

__all__ = ["UnusedColumns"]

_MOST = 64  # distinct cells; a column of more holds no splits
_YES_OR_NO = {"0", "1", "true", "false", "yes", "no", "t", "f", "y", "n", "0.0", "1.0"}
_SPLIT_NAMES = {"partition", "subset", "usage", "phase", "set", "dataset_split", "data_split", "fold_type"}
_OWNER = "patient|subject|person|participant|donor|animal|plant|specimen|slide|case|study|session|video|sequence|scene"
_GROUP_NAMES = re.compile(rf"(?:{_OWNER})s?(?:_?(?:id|ids|no|nr|num|number|name|code|key|uid))?")


class UnusedColumns:
    """The cells of the columns that are not read, gathered row by row.

    ``split``: True where the splits are known without a column.
    """

    def __init__(self, columns: Columns, *, split: bool = False) -> None:
        used = {columns.path, columns.label, columns.split, columns.group}
        self._names = {place: name for place, name in enumerate(columns.names) if place not in used and name}
        self._asks_split = columns.split is None and not split
        self._asks_group = columns.group is None
        self._cells: dict[int, Counter[str]] = {place: Counter() for place in self._names}

    @property
    def names(self) -> list[str]:
        """The names of these columns."""
        return list(self._names.values())

    def add(self, cells: Sequence[object]) -> None:
        """Gather one row; ``cells`` are those of all columns."""
        for place, found in list(self._cells.items()):
            cell = cells[place]
            found["" if cell is None else str(cell).strip()] += 1
            if len(found) > _MOST and not self._may_group(self._names[place]):
                del self._cells[place]

    def notes(self, place: str) -> list[str]:
        """Sentences on columns that may be meant.

        ``place`` begins the messages: ``f"{file}: line 1"``. Raises DataError for a column that holds splits under
        another name than ``split``.
        """
        found: list[str] = []
        for position, cells in self._cells.items():
            name, words = self._names[position], sorted(word for word in cells if word)
            if self._asks_split and len(words) > 1:
                found += self._on_split(place, name, words)
            if self._may_group(name) and 1 < len(words) < sum(cells.values()) - cells[""]:
                found.append(
                    f"the column '{name}' is not used: rename it to 'group' if its images belong together and shall "
                    "stay in one split"
                )
        return found

    def _may_group(self, name: str) -> bool:
        return self._asks_group and _GROUP_NAMES.fullmatch(plain(name)) is not None

    @staticmethod
    def _on_split(place: str, name: str, words: list[str]) -> Iterable[str]:
        told = f"{place} names a column '{visible(name)}', whose cells are {name_some(words)}"
        if all(map(split_of, words)) and len(set(map(split_of, words))) > 1:
            raise DataError(f"{told}: rename it to 'split' if that is meant, or remove it")
        if split_of(plain(name).removeprefix("is_")) and _YES_OR_NO.issuperset(word.lower() for word in words):
            raise DataError(f"{told}: give a column 'split' (train, val, test) if splits are meant, or remove it")
        if plain(name) in _SPLIT_NAMES:
            yield f"the column '{name}' is not used: if it holds splits, call it 'split' and its cells train, val, test"

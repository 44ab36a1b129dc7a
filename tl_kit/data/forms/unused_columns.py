"""Unused columns of a table that seem to hold splits or groups: such tables would train on their own test images."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tl_kit.data.findings import Finding
from tl_kit.data.forms.columns import Columns, plain
from tl_kit.data.forms.rows import RowWriter
from tl_kit.data.listing import Listing, name_some, split_of

__all__ = ["UnusedColumns"]

_MOST = 64  # distinct cells; a column of more holds no splits
_MOST_OWNERS = 10_000  # distinct cells, none of them twice: these are no groups
_FEW = 10  # distinct cells; a column "animal" of fewer may hold classes
_YES_OR_NO = {"0", "1", "true", "false", "yes", "no", "t", "f", "y", "n", "0.0", "1.0", ""}
_SPLIT_NAMES = {"partition", "subset", "usage", "phase", "set", "dataset_split", "data_split"}
_PERSON = "patient|subject|person|participant|donor"
_THING = "animal|plant|specimen|slide|case|study|session|video|sequence|scene"
_NUMBERED = re.compile(rf"(?:{_PERSON}|{_THING})s?_?(?:id|ids|no|nr|num|number|code|key|uid)")
_NAMED = re.compile(rf"(?:{_PERSON}|{_THING})s?(?:_?name)?")
_OF_IMAGES = re.compile(r"^is_|_(?:image|img|sample|row)s?$")


@dataclass
class _Cells:
    """The distinct cells of a column; ``twice``: one of them stands in several rows."""

    distinct: set[str] = field(default_factory=set)
    twice: bool = False


class UnusedColumns:
    """The cells of the columns that are not read, by position, gathered row by row or by their counts."""

    def __init__(self, columns: Columns) -> None:
        used = {columns.path, columns.label, columns.split, columns.group}
        self._names = {place: name for place, name in enumerate(columns.names) if place not in used and name}
        owners = (place for place, name in self._names.items() if _is_owner(name)) if columns.group is None else ()
        self._owners = frozenset(owners)
        self._cells = {place: _Cells() for place in self._names}

    @property
    def live(self) -> tuple[int, ...]:
        """The positions of the columns whose cells are still gathered."""
        return tuple(self._cells)

    def add(self, cells: Sequence[object]) -> None:
        """Gather one row; ``cells`` are those of all columns."""
        for place in self.live:
            self.add_counts(place, [(cells[place], 1)])

    def add_counts(self, place: int, counts: Iterable[tuple[object, int]]) -> None:
        """Gather cells of one column, each with the number of its rows."""
        found = self._cells.get(place)
        if found is None:
            return
        for cell, count in counts:
            text = "" if cell is None or cell != cell else str(cell).strip()  # NaN is an empty cell
            found.twice = found.twice or (bool(text) and (count > 1 or text in found.distinct))
            found.distinct.add(text)
        owner, count = place in self._owners, len(found.distinct)
        if owner and found.twice:
            if count > _MOST:
                found.distinct = set(sorted(found.distinct)[:_MOST])  # what is known of groups is known
        elif count > (_MOST_OWNERS if owner else _MOST):
            del self._cells[place]

    def tell(self, found: Listing | RowWriter, *, splits_known: bool) -> None:
        """Add :meth:`told` to what is found in the table."""
        faults, notes = self.told(splits_known=splits_known)
        found.faults += faults
        found.notes += [note for note in notes if note not in found.notes]

    def told(self, *, splits_known: bool) -> tuple[list[Finding], list[str]]:
        """Faults, of columns that hold splits under another name, and sentences on those that may be meant.

        ``splits_known``: the table's splits are read from elsewhere.
        """
        faults, notes = list[Finding](), list[str]()
        for place, cells in self._cells.items():
            name, words = self._names[place], sorted(cells.distinct - {""})
            if not splits_known and len(cells.distinct) > 1:
                fault, note = _on_split(name, cells.distinct)
                faults += fault
                notes += note
            enough = len(words) >= (2 if _NUMBERED.fullmatch(plain(name)) or _is_person(name) else _FEW)
            if place in self._owners and cells.twice and enough:
                notes.append(
                    f"the column '{name}' is not used: rename it to 'group' if its images belong together and shall "
                    "stay in one split"
                )
        return faults, notes


def _is_owner(name: str) -> bool:
    return any(pattern.fullmatch(plain(name)) for pattern in (_NUMBERED, _NAMED))


def _is_person(name: str) -> bool:
    return re.match(_PERSON, plain(name)) is not None


def _on_split(name: str, cells: set[str]) -> tuple[list[Finding], list[str]]:
    """The fault or the sentence, if any, on a column that no other says the splits of."""
    words = sorted(cells - {""})
    told = f"the column '{name}' is not used, whose cells are {name_some(words)}"
    if len(words) > 1 and all(map(split_of, words)) and len(set(map(split_of, words))) > 1:
        text = f"{told}: these are splits, and test images would be trained on; rename it to 'split'"
        return [Finding("error", "unused-split", text)], []
    bare = _OF_IMAGES.sub("", _OF_IMAGES.sub("", plain(name)))
    if split_of(bare) and words and _YES_OR_NO.issuperset(cell.lower() for cell in cells):
        text = f"{told}: if it marks a split, give a column 'split' of train, val and test in its place"
        return ([Finding("error", "unused-split", text)], []) if plain(name) != bare else ([], [text])
    if plain(name) in _SPLIT_NAMES:
        return [], [
            f"the column '{name}' is not used: if it holds splits, call it 'split' and its cells train, val, test"
        ]
    return [], []

"""Labels of pairs: one source for the whole set, a file's ending (``.cls``) or a key of the JSON files (``label``)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tl_kit.data.forms.columns import LABEL_NAMES, plain
from tl_kit.data.forms.rows import text_of_label
from tl_kit.errors import DataError

__all__ = ["CLS", "JSON", "TXT", "Pair", "no_label", "source_of_labels"]

CLS, JSON, TXT = ".cls", ".json", ".txt"
"""Sources that are files: of a JSON file that holds a label alone, and no object with keys."""


@dataclass(frozen=True, slots=True)
class Pair:
    """An image, and all that may be its label: values by source. ``where`` begins messages; ``inside``: its folders.

    ``names``: those of numbers, by index.
    """

    where: str
    image: Path
    values: Mapping[str, Any]
    names: Sequence[str] | None
    split: str | None
    group: str | None
    inside: tuple[str, ...] = ()

    def label(self, source: str | None) -> str | None:
        """The class by one source; None if it says none. Raises DataError as :func:`text_of_label` does."""
        value = None if source is None else self.values.get(source)
        if isinstance(value, DataError):
            raise value
        return text_of_label(value, None if self.names is None else list(self.names), self.where)

    def plain_label(self, source: str) -> str | None:
        """The label as written, for comparisons; None also for what cannot be one."""
        value = self.values.get(source)
        return None if isinstance(value, (list, dict, DataError)) else text_of_label(value, None, self.where)


def source_of_labels(pairs: Sequence[Pair], given: str | None, shown: Path) -> str | None:
    """The source that holds the labels of all pairs; None if there is none.

    ``given`` (``--label-column``) is a key of the JSON files, or ``cls`` or ``txt``. Without it, what there is decides:
    ``.cls`` files come before keys of the JSON, in the order of :data:`LABEL_NAMES`, and these before ``.txt`` files,
    which may be captions. Raises DataError where no pair has the given source, where two sources disagree on which
    images belong together, and where some images have their label in one source and others in another.
    """
    there = dict.fromkeys(source for pair in pairs for source, value in pair.values.items() if value is not None)
    if given is not None:
        return _given(given, there, shown)
    tiers = [[name for name in tier if name in there] for tier in LABEL_NAMES]
    first, *later = [tier for tier in tiers if tier] or [[]]
    files = [name for name in (CLS, JSON) if name in there]
    rivals = [*files[:1], *first, *files[1:]] if CLS in there else [*first, *files]
    if not rivals:
        return TXT if TXT in there else None
    chosen, *others = rivals
    for other in others:
        _check_agreement(pairs, chosen, other, shown)
    for other in (*others, *(name for tier in later for name in tier)):
        lone = next((pair for pair in pairs if _lacks(pair, chosen) and not _lacks(pair, other)), None)
        if lone is not None:
            raise DataError(
                f"{shown}: some of its images have their class in {_shown(chosen)}, others in {_shown(other)} "
                f"({lone.image.name}): {_remedy(chosen, other)}"
            )
    # An empty .cls says that there is no label; a caption beside it is none either.
    bare = (pair for pair in pairs if chosen not in pair.values and isinstance(pair.values.get(TXT), str))
    if (lone := next(bare, None)) is not None:
        raise DataError(
            f"{shown}: some of its images have their class in {_shown(chosen)}, others in {_shown(TXT)} "
            f"({lone.image.name}): {_remedy(chosen, TXT)}"
        )
    return chosen


def no_label(source: str) -> str:
    """The reason for an image without a class in the source of the set."""
    return f"no label in {_shown(source)}"


def _lacks(pair: Pair, source: str) -> bool:
    value = pair.values.get(source)
    return value is None or value == "" or (isinstance(value, float) and value != value)


def _given(given: str, there: Iterable[str], shown: Path) -> str:
    found = next((name for name in (plain(given), f".{given.strip().lower().lstrip('.')}") if name in there), None)
    if found is None:
        known = ", ".join(f"'{name.lstrip('.')}'" for name in list(there)[:12])
        raise DataError(
            f"{shown}: no image has a label '{given}', as --label-column has it; there are {known or 'none'} (files by "
            "their ending, and keys of the JSON files)"
        )
    return found


def _check_agreement(pairs: Iterable[Pair], one: str, other: str, shown: Path) -> None:
    """Raises DataError unless labels of two sources belong to each other, each to one: 3 to cat.

    Where ``one`` is ``.cls``, several of its labels may go with one of the other source.
    """
    there: dict[str, str] = {}
    back: dict[str, str] = {}
    for pair in pairs:
        a, b = pair.plain_label(one), pair.plain_label(other)
        if a is not None and b is not None and not there.setdefault(a, b) == b:
            raise _disagreement(pair, one, other, shown, f"'{a}' goes with '{there[a]}' and with '{b}'")
        # A .cls file is the label that the form itself names: a key may be coarser, as a family is of species.
        if a is not None and b is not None and one != CLS and not back.setdefault(b, a) == a:
            raise _disagreement(pair, one, other, shown, f"'{b}' goes with '{back[b]}' and with '{a}'")


def _disagreement(pair: Pair, one: str, other: str, shown: Path, what: str) -> DataError:
    return DataError(
        f"{shown}: {_shown(one)} and {_shown(other)} disagree on the classes: {what} ({pair.image.name}); "
        f"{_remedy(one, other)}"
    )


def _shown(source: str) -> str:
    return f"{source} files" if source.startswith(".") else f"the key '{source}' of .json files"


def _remedy(one: str, other: str) -> str:
    return f"name the one that counts with --label-column {one.lstrip('.')} or {other.lstrip('.')}"

"""Figures of the report: a number, its text, and the entry of a JSON file that holds it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from tl_kit.display import visible
from tl_kit.errors import CheckpointError
from tl_kit.untrusted import plain_number

__all__ = ["Figure", "Record", "Shape", "count", "milliseconds", "percent", "plain", "points", "seconds", "signed"]

Shape: TypeAlias = Callable[[float], str]
_LARGEST = 1e300
_SHOWN = 40  # characters of a broken entry
_WORDS: Mapping[type, str] = {str: "a text", int: "a whole number", dict: "a JSON object", list: "a list"}


@dataclass(frozen=True)
class Figure:
    """``value`` is the number in full, ``shown`` its text, ``source`` the entry: ``tlkit.json#/test/accuracy``."""

    value: float
    shown: str
    source: str


@dataclass(frozen=True)
class Record:
    """A JSON file of a result: its name and content; ``file`` is what errors call it, empty for its name.

    What the file does not have is None or empty, since earlier versions wrote fewer entries. An entry that cannot be
    what it is called raises CheckpointError, which names the file and the entry.
    """

    name: str
    content: Mapping[str, Any]
    file: str = ""

    def at(self, *path: str | int) -> Any:
        """The entry at this path; None where there is none. Raises CheckpointError if the way to it is broken off."""
        value: Any = self.content
        for place, step in enumerate(path):
            if value is None:
                return None
            if not isinstance(value, Mapping if isinstance(step, str) else list):
                raise self.broken("a JSON object" if isinstance(step, str) else "a list", *path[:place])
            known: Any = value if isinstance(step, str) else range(len(value))
            inside: Any = value
            value = inside[step] if step in known else None
        return value

    def figure(self, *path: str | int, shape: Shape) -> Figure | None:
        """The number at this path; None where there is none. Raises CheckpointError for what ``shape`` cannot show."""
        value = self.at(*path)
        if value is None:
            return None
        low, high, what = _BOUNDS.get(shape, (-_LARGEST, _LARGEST, "a number"))
        if not plain_number(value, low, high):
            raise self.broken(what, *path)
        steps = (str(step).replace("~", "~0").replace("/", "~1") for step in path)
        return Figure(value, shape(value), f"{self.name}#/{'/'.join(steps)}")

    def number(self, *path: str | int) -> float | None:
        """The number at this path; None where there is none. Raises CheckpointError for anything else."""
        found = self.figure(*path, shape=str)
        return None if found is None else found.value

    def text(self, *path: str | int) -> str:
        """The text at this path; empty where there is none. Raises CheckpointError for anything else."""
        found = self._of(str, "a text", *path)
        return found or ""

    def whole(self, *path: str | int) -> int | None:
        """The count at this path; None where there is none. Raises CheckpointError for anything else."""
        found: int | None = self._of(int, "a whole number", *path)
        if found is not None and (isinstance(found, bool) or not 0 <= found < 2**63):
            raise self.broken("a whole number", *path)
        return found

    def listed(self, *path: str | int, of: type = str) -> list[Any]:
        """The list of items ``of`` one type at this path; empty without one. Raises CheckpointError for others."""
        found: list[Any] = self._of(list, "a list", *path) or []
        for place, item in enumerate(found):
            if not isinstance(item, of) or isinstance(item, bool):
                raise self.broken(_WORDS[of], *path, place)
        return found

    def mapping(self, *path: str | int) -> Mapping[str, Any]:
        """The JSON object at this path; empty where there is none. Raises CheckpointError for anything else."""
        return self._of(dict, "a JSON object", *path) or {}

    def _of(self, kind: type, words: str, *path: str | int) -> Any:
        value = self.at(*path)
        if value is not None and not isinstance(value, kind):
            raise self.broken(words, *path)
        return value

    def broken(self, wanted: str, *path: str | int) -> CheckpointError:
        """The error that the entry at this path is not what is ``wanted``."""
        value: Any = self.content
        for step in path:
            value = value[step]
        shown = visible(json.dumps(value, ensure_ascii=False, default=str)[:_SHOWN])
        name = visible(".".join(map(str, path)))
        return CheckpointError(
            f"{self.file or self.name}: {name} is {shown}, and must be {wanted}; the file is damaged or was changed"
        )


def percent(value: float) -> str:
    """A share: ``0.806`` is ``80.6 %``, with a space that does not break.

    A share that is not all gets the digits that show it, up to three: ``99.98 %``.
    """
    digits = next(
        (digits for digits in (1, 2, 3) if value >= 1 or f"{100 * value:.{digits}f}" != f"{100:.{digits}f}"), 1
    )
    return f"{100 * value:.{digits}f}\u00a0%"


def points(value: float) -> str:
    """A difference of shares in points: ``+1.6``."""
    return f"{100 * value:+.1f}"


def plain(value: float) -> str:
    """A number of three decimals, such as a loss."""
    return f"{value:.3f}"


def signed(value: float) -> str:
    """A difference of three decimals, with its sign."""
    return f"{value:+.3f}"


def count(value: float) -> str:
    """A whole number with separators of thousands."""
    return f"{value:,.0f}"


def seconds(value: float) -> str:
    """Seconds, minutes or hours, whatever is read most easily."""
    if value < 120:
        return f"{value:.1f}\u00a0s"
    return f"{value / 60:.0f}\u00a0min" if value < 7200 else f"{value / 3600:.1f}\u00a0h"


def milliseconds(value: float) -> str:
    """Milliseconds, whole."""
    return f"{value:.0f}\u00a0ms"


_ROUNDING = 1e-9
_BOUNDS: Mapping[Shape, tuple[float, float, str]] = {
    percent: (-_ROUNDING, 1 + _ROUNDING, "a share from 0 to 1"),
    plain: (0.0, _LARGEST, "a number from 0"),
    count: (0.0, _LARGEST, "a number from 0"),
    seconds: (0.0, _LARGEST, "a number of seconds from 0"),
    milliseconds: (0.0, _LARGEST, "a number of milliseconds from 0"),
    points: (-1.0, 1.0, "a difference of shares from -1 to 1"),
}

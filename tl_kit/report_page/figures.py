"""Figures of the report: a number, its text, and the entry of a JSON file that holds it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from tl_kit.untrusted import plain_number

__all__ = ["Figure", "Record", "Shape", "count", "percent", "plain", "points", "seconds", "signed"]

Shape: TypeAlias = Callable[[float], str]
_LARGEST = 1e300


@dataclass(frozen=True)
class Figure:
    """``value`` is the number in full, ``shown`` its text, ``source`` the entry: ``tlkit.json#/test/accuracy``."""

    value: float
    shown: str
    source: str


@dataclass(frozen=True)
class Record:
    """A JSON file of a result: its name and content."""

    name: str
    content: Mapping[str, Any]

    def at(self, *path: str | int) -> Any:
        """The entry at this path; None where there is none."""
        value: Any = self.content
        for step in path:
            known = range(len(value)) if isinstance(value, list) else value if isinstance(value, Mapping) else ()
            if step not in known:
                return None
            value = value[step]
        return value

    def figure(self, *path: str | int, shape: Shape) -> Figure | None:
        """The number at this path; None where the file has no finite number there."""
        value = self.at(*path)
        if not plain_number(value, -_LARGEST, _LARGEST):
            return None
        steps = (str(step).replace("~", "~0").replace("/", "~1") for step in path)
        return Figure(value, shape(value), f"{self.name}#/{'/'.join(steps)}")

    def text(self, *path: str | int) -> str:
        """The text at this path; empty where there is none."""
        value = self.at(*path)
        return value if isinstance(value, str) else ""


def percent(value: float) -> str:
    """A share: ``0.806`` is ``80.6 %``, with a space that does not break."""
    return f"{100 * value:.1f}\u00a0%"


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

"""Charts as numbers: axes with ticks, and lines and marks in the units of an SVG picture."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["Chart", "Series", "chart"]

WIDTH, HEIGHT = 420, 300
LEFT, RIGHT, TOP, BOTTOM = 68, 26, 12, 46
_STEPS = (1, 2, 5, 10)


@dataclass(frozen=True, kw_only=True)
class Series:
    """Points (x, y) with the name of what they are; ``style`` is their class in the style sheet, ``a`` to ``d``.

    ``line``: they are joined. ``bars``: an interval (low, high) at each point. ``labels``: a text at each.
    """

    name: str
    points: Sequence[tuple[float, float]]
    style: str = "a"
    line: bool = True
    marks: bool = True
    bars: Sequence[tuple[float, float]] = ()
    labels: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A series in the picture's units: the line's points as SVG has them, marks, and ends of intervals."""

    name: str
    style: str
    path: str
    marks: tuple[tuple[float, float, str], ...]
    bars: tuple[tuple[float, float, float], ...]


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart: texts, ticks as (place, text), placed series; ``rows`` are the same numbers as a table."""

    title: str
    text: str
    x_label: str
    y_label: str
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    series: tuple[Placed, ...]
    diagonal: str = ""
    width: int = WIDTH
    height: int = HEIGHT
    box: tuple[int, int, int, int] = (LEFT, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM)
    rows: tuple[tuple[str, str, str], ...] = field(default=())


def chart(
    series: Sequence[Series],
    *,
    title: str,
    text: str,
    x: tuple[str, float, float],
    y: tuple[str, float, float],
    share: tuple[bool, bool] = (True, True),
    diagonal: bool = False,
) -> Chart:
    """A chart of ``series``; ``x`` and ``y`` are label, lowest and highest value of an axis.

    ``share``: whether an axis has shares, written in percent. ``diagonal``: a line from corner to corner.
    """

    def across(value: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (value - x[1]) / ((x[2] - x[1]) or 1), 1)

    def up(value: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - y[1]) / ((y[2] - y[1]) or 1), 1)

    placed = tuple(
        Placed(
            name=one.name,
            style=one.style,
            path=" ".join(f"{across(a)},{up(b)}" for a, b in one.points) if one.line else "",
            marks=tuple(
                (across(a), up(b), one.labels[place] if one.labels else "")
                for place, (a, b) in enumerate(one.points if one.marks else ())
            ),
            bars=tuple(
                (across(a), up(low), up(high)) for (a, _), (low, high) in zip(one.points, one.bars, strict=False)
            ),
        )
        for one in series
    )
    return Chart(
        title=title,
        text=text,
        x_label=x[0],
        y_label=y[0],
        x_ticks=tuple(zip(map(across, ticks(*x[1:])), _texts(ticks(*x[1:]), share[0]), strict=True)),
        y_ticks=tuple(zip(map(up, ticks(*y[1:])), _texts(ticks(*y[1:]), share[1]), strict=True)),
        series=placed,
        diagonal=f"{across(x[1])},{up(y[1])} {across(x[2])},{up(y[2])}" if diagonal else "",
        rows=tuple((one.name, _text(a, share[0], 1), _text(b, share[1], 1)) for one in series for a, b in one.points),
    )


def ticks(low: float, high: float, *, most: int = 6) -> list[float]:
    """Round values from ``low`` to ``high``, at most ``most``."""
    if high <= low:
        return [low]
    rough = (high - low) / (most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in _STEPS if factor * power >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 12) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _texts(values: Sequence[float], share: bool) -> list[str]:
    """Ticks as texts, with as many digits as tell them apart."""
    step = 100 * min((b - a for a, b in itertools.pairwise(values)), default=1.0)
    digits = max(0, math.ceil(-math.log10(step) - 1e-9))
    return [_text(value, share, digits) for value in values]


def _text(value: float, share: bool, digits: int = 0) -> str:
    return f"{100 * value:.{digits}f}\u00a0%" if share else f"{value:.3g}"

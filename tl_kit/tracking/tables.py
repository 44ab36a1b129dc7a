"""Tables of scores for people, in Markdown: what trackers show as text."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tl_kit.display import HONEST, visible

__all__ = ["ScoreTable", "final_scalars", "score_table"]

_SPECIAL = str.maketrans({character: f"\\{character}" for character in r"\`*_[]|"})


@dataclass(frozen=True)
class ScoreTable:
    """A table with a name: the ``columns``, and ``rows`` of as many texts or numbers."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float, ...], ...]

    @property
    def markdown(self) -> str:
        """The table in Markdown; names in it are escaped."""
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def score_table(scores: Mapping[str, Mapping[str, float] | None], kinds: Mapping[str, str]) -> ScoreTable:
    """A run's final scores: a row for each metric, a column for each split; the first row has their kinds."""
    found = {split: values for split, values in scores.items() if values is not None}
    names = list(dict.fromkeys(name for values in found.values() for name in values))
    kind: tuple[str | float, ...] = ("kind", *(kinds.get(split, "unknown") for split in found))
    rows: list[tuple[str | float, ...]] = [(name, *(values[name] for values in found.values())) for name in names]
    return ScoreTable("scores", ("", *found), (kind, *rows))


def final_scalars(scores: Mapping[str, Mapping[str, Any] | None], kinds: Mapping[str, str]) -> dict[str, float]:
    """The final scores by name, such as ``final/test/accuracy``; a score that is no estimate has its kind in it.

    ``final/val-selected-on/accuracy`` is too good as an estimate, since these images chose something.
    """
    found: dict[str, float] = {}
    for split, values in scores.items():
        kind = kinds.get(split, "unknown")
        of = split if kind in HONEST else f"{split}-{kind.replace(' ', '-')}"
        numbers = {name: value for name, value in (values or {}).items() if isinstance(value, int | float)}
        found |= {f"final/{of}/{name}": float(value) for name, value in numbers.items()}
    return found


def _cell(value: str | float) -> str:
    if isinstance(value, str):
        return html.escape(visible(value), quote=False).translate(_SPECIAL) if value != "---" else value
    return f"{value:.4g}"

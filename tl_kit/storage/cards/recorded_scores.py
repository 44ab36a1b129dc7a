"""Recorded scores: what the records of a checkpoint, an ensemble or a fit say of its scores, for model cards.

An entry of another type or range than tl-kit writes counts as missing: records may come from others.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tl_kit.metrics import wilson
from tl_kit.score_kinds import KINDS
from tl_kit.untrusted import plain_number

__all__ = ["Score", "gain_of", "mapping", "score_of", "texts_of"]

_MOST_IMAGES = 2**53


@dataclass(frozen=True, kw_only=True)
class Score:
    """Scores on one split, as :func:`tl_kit.metrics.summary` gives them; ``images``: how many, None if unknown."""

    split: str
    kind: str
    images: int | None
    figures: Mapping[str, float]

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the accuracy."""
        return wilson(self.figures["accuracy"], self.images) if self.images else None


def score_of(split: str, figures: object, kind: object, images: object) -> Score | None:
    """The score with these entries of a record; None where they hold no accuracy."""
    most = sys.float_info.max
    numbers = {name: float(value) for name, value in mapping(figures).items() if plain_number(value, 0, most)}
    if not 0 <= numbers.get("accuracy", -1) <= 1:
        return None
    count = images if isinstance(images, int) and plain_number(images, 1, _MOST_IMAGES) else None
    return Score(split=split, kind=str(kind) if kind in KINDS else "unknown", images=count, figures=numbers)


def gain_of(receipt: Mapping[str, Any]) -> str | None:
    """The ensemble's gain over its best member, in a sentence; None where the receipt has none."""
    gain = mapping(receipt.get("gain"))
    interval = gain.get("ci95")
    figures = [gain.get("accuracy"), *(interval if isinstance(interval, list | tuple) else ())]
    if len(figures) != 3 or not all(plain_number(figure, -1, 1) for figure in figures):
        return None
    points, low, high = (100 * figure for figure in figures)
    return (
        f"Gain over the member that validation finds best: {points:+.1f} points of test accuracy "
        f"(95 % interval {low:+.1f} to {high:+.1f})."
    )


def mapping(value: object) -> Mapping[str, Any]:
    """The value where it is a JSON object, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def texts_of(value: object) -> tuple[str, ...]:
    """The texts in a JSON array; none where the value is something else."""
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list | tuple) else ()

"""Predictions of one image, and of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tl_kit.html_tables import Bar, html_block, html_lines, html_table

__all__ = ["Prediction", "Predictions", "prediction_of"]

_SHOWN, _MOST_ROWS = 5, 50  # classes of one image, and images, in a notebook


@dataclass(frozen=True)
class Prediction:
    """One image's probabilities by class name, most probable first; or ``error``, the reason why there are none."""

    source: str
    probabilities: dict[str, float]
    error: str | None = None

    @property
    def label(self) -> str | None:
        """The most probable class name; None where the image could not be decoded."""
        return next(iter(self.probabilities), None)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {"source": self.source, "label": self.label, "probabilities": self.probabilities, "error": self.error}

    def _repr_html_(self) -> str:
        """The most probable classes, for a notebook."""
        if self.error is not None:
            return html_block(self.source, html_lines([self.error]))
        rows = [[name, Bar(share)] for name, share in list(self.probabilities.items())[:_SHOWN]]
        return html_block(self.source, html_table(["", ""], rows, align="ll", strong=0))


class Predictions(list[Prediction]):
    """Predictions in the order of their images: a list, which a notebook shows as a table."""

    def _repr_html_(self) -> str:
        """The first of them with their most probable class, for a notebook."""
        rows = [
            (each.source, each.error or each.label, Bar(max(each.probabilities.values())) if each.probabilities else "")
            for each in self[:_MOST_ROWS]
        ]
        rest = len(self) - len(rows)
        return html_block(
            "1 prediction" if len(self) == 1 else f"{len(self):,} predictions",
            html_table(["image", "label", "probability"], rows, align="lll"),
            html_lines([f"and {rest:,} more"] if rest else []),
        )


def prediction_of(name: str, row: NDArray[np.float64], classes: Sequence[str], error: str | None) -> Prediction:
    """A Prediction from probabilities (classes,), or from the ``error`` of an image without any."""
    if error is not None:
        return Prediction(name, {}, error)
    return Prediction(name, {classes[i]: float(row[i]) for i in np.argsort(-row, kind="stable")})

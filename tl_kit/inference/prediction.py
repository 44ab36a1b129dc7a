"""One image's prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Prediction", "prediction_of"]


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


def prediction_of(name: str, row: NDArray[np.float64], classes: Sequence[str], error: str | None) -> Prediction:
    """A Prediction from probabilities (classes,), or from the ``error`` of an image without any."""
    if error is not None:
        return Prediction(name, {}, error)
    return Prediction(name, {classes[i]: float(row[i]) for i in np.argsort(-row, kind="stable")})

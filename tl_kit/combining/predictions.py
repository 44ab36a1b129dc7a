"""Predictions of an ensemble's members for the images of one split."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["SplitPredictions"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True)
class SplitPredictions:
    """The members' probabilities on one split, (m, n, k), in one class order; ``labels`` are integers (n,).

    Raises:
        ValueError: the shapes do not fit each other.
    """

    members: FloatArray
    labels: NDArray[np.int64]

    def __post_init__(self) -> None:
        members, labels = np.shape(self.members), np.shape(self.labels)
        if len(members) != 3 or members[1:2] != labels:
            raise ValueError(f"want (m, n, k) and (n,), got {members} and {labels}")

"""Diversity: the share of images on which members disagree."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["disagreement"]


def disagreement(member_probabilities: ArrayLike) -> list[list[float]]:
    """Share of images for which two members predict different classes: m rows of m, symmetric, 0 on the diagonal.

    The disagreement measure of Skalak (1996) and Ho (1998), but on predicted classes instead of on correctness: two
    members that predict different wrong classes disagree.

    Args:
        member_probabilities: (m, n, k) with n > 0.
    """
    predicted = np.asarray(member_probabilities).argmax(axis=2)
    return [[float((a != b).mean()) for b in predicted] for a in predicted]

"""Confident learning: labels that are probably wrong, found from out-of-fold probabilities.

Northcutt, Jiang & Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels", equations 1 and 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Suspicion", "class_thresholds", "suspect_labels"]


@dataclass(frozen=True)
class Suspicion:
    """For each image (n,): whether its label is suspect, the class to which it is confidently assigned, its margin.

    ``confident`` is -1 if no class reaches its threshold. ``margin`` is p_label - max of the others, in -1..1.
    """

    suspect: NDArray[np.bool_]
    confident: NDArray[np.int64]
    margin: NDArray[np.float64]

    def ranking(self) -> NDArray[np.int64]:
        """Indices of the suspect images, the smallest margin first."""
        order = np.argsort(self.margin, kind="stable")
        found: NDArray[np.int64] = order[self.suspect[order]]
        return found


def class_thresholds(probabilities: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
    """t_j (k,): the mean probability of class j over the images labelled j; infinite for a class without images."""
    values, truth = _arrays(probabilities, labels)
    classes = values.shape[1]
    counts = np.bincount(truth, minlength=classes)
    sums = np.bincount(truth, weights=values[np.arange(len(truth)), truth], minlength=classes)
    found: NDArray[np.float64] = np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)
    return found


def suspect_labels(probabilities: ArrayLike, labels: ArrayLike) -> Suspicion:
    """Suspect labels: the off-diagonal entries of the confident joint.

    With thresholds t_j (:func:`class_thresholds`), image x is assigned to class j = argmax of p_l(x) over the classes l
    with p_l(x) >= t_l, if there are any. Its label i is suspect if j differs from i.

    Args:
        probabilities: (n images, k >= 2 classes), each row from a model that did not see that image.
        labels: (n,) in 0..k-1.

    Permuting the images permutes the result. Raises ValueError for arrays of other shapes.
    """
    values, truth = _arrays(probabilities, labels)
    rows = np.arange(len(truth))
    reached = values >= class_thresholds(values, truth)
    confident = np.where(reached.any(axis=1), np.where(reached, values, -1.0).argmax(axis=1), -1)
    others = values.copy()
    others[rows, truth] = -np.inf
    return Suspicion(
        suspect=(confident >= 0) & (confident != truth),
        confident=confident.astype(np.int64),
        margin=values[rows, truth] - others.max(axis=1),
    )


def _arrays(probabilities: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    values, truth = np.asarray(probabilities, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    if values.ndim != 2 or values.shape[1] < 2 or truth.shape != values.shape[:1]:
        raise ValueError(f"want probabilities (n, k >= 2) and labels (n,), got {values.shape} and {truth.shape}")
    return values, truth

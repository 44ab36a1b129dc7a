"""Canonical orders of members and classes, so that results do not depend on how these are listed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["canonical_members", "label_probabilities", "stratified_folds"]


def label_probabilities(stack: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """The probability that each member gives to each image's label: (m, n) from (m, n, k) and (n,)."""
    result: NDArray[np.float64] = stack[:, np.arange(len(labels)), labels]
    return result


def canonical_members(stack: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The members' numbers (m,) in an order that depends only on their probabilities of the labels.

    A fit in this order breaks ties in the same way for every order of members and classes.
    """
    found = label_probabilities(stack, labels)
    return np.array(sorted(range(len(stack)), key=lambda member: found[member].tobytes()), dtype=np.int64)


def stratified_folds(labels: NDArray[np.int64], folds: int, *, seed: int) -> NDArray[np.int64]:
    """The fold 0..folds-1 of each image (n,): sizes differ by at most one, also within each class.

    There are at most as many folds as images. Classes are processed in the order in which they occur, so their
    numbering has no influence.
    """
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))[inverse]
    order = np.lexsort((np.random.default_rng(seed).random(len(labels)), rank))
    numbers = np.empty(len(labels), dtype=np.int64)
    numbers[order] = np.arange(len(labels)) % min(folds, len(labels))
    return numbers

"""The order of training images: seeded draws for each epoch, cut into even batches."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["balanced_batches", "even_batches"]


def even_batches(images: int, batch_size: int, *, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """Indices of one epoch in batches of at most ``batch_size``, whose sizes differ by at most one.

    65 images at batch 64 make 33 + 32: no image is dropped, and no batch of one breaks BatchNorm.
    """
    order = np.random.default_rng([seed, epoch]).permutation(images)
    return np.array_split(order, math.ceil(images / batch_size))


def balanced_batches(labels: NDArray[np.int64], batch_size: int, *, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """As many draws and batches as ``even_batches`` has for the images of ``labels`` (n,), every class equally often.

    Class-aware sampling (Shen, Lin & Huang 2016), an epoch at a time: classes differ by at most one draw,
    and within a class every image is drawn before any is drawn again. The (t + 1)-th draw of image i in the epoch is
    the number i + n t, so that it can be augmented anew.
    """
    rng, images = np.random.default_rng([seed, epoch]), len(labels)
    _, members = _by_class(labels)
    turns = np.resize(rng.permutation(len(members)), images)  # the classes in turn: within one of each other
    order = np.empty(images, dtype=np.int64)
    drawn, places = _by_class(rng.permutation(turns))
    for number, where in zip(drawn, places, strict=True):
        rounds = range(math.ceil(len(where) / len(members[number])))
        draws = np.concatenate([rng.permutation(members[number]) + images * again for again in rounds])
        order[where] = draws[: len(where)]
    return np.array_split(order, math.ceil(images / batch_size))


def _by_class(labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[NDArray[np.int64]]]:
    """The classes that occur, ascending, and the positions of each, ascending."""
    present, counts = np.unique(labels, return_counts=True)
    return present, np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])

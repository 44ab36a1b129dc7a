"""The order of training images: a seeded permutation for each epoch, cut into even batches."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["even_batches"]


def even_batches(images: int, batch_size: int, *, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """Indices of one epoch in batches of at most ``batch_size``, whose sizes differ by at most one.

    65 images at batch 64 make 33 + 32: no image is dropped, and no batch of one breaks BatchNorm.
    """
    order = np.random.default_rng([seed, epoch]).permutation(images)
    return np.array_split(order, math.ceil(images / batch_size))

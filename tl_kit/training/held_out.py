"""Out-of-fold losses of the closed-form head, by which kinds of features of the same images are compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tl_kit.config import PenaltyConfig
from tl_kit.machine.runtime import available_cores
from tl_kit.optimization.feature_scaling import fit_scaling
from tl_kit.optimization.penalty_choice import Folds, choose, drawn_folds, out_of_fold
from tl_kit.optimization.side_by_side import one_thread
from tl_kit.optimization.softmax_regression import rotate

__all__ = ["HeldOut", "held_out"]

Floats = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Predictions by heads that were fitted without the image, at the strength of choice.

    ``images`` (m,) are the positions of those that were held out; ``loss`` (m,) in nats, as in
    :func:`tl_kit.metrics.bounded_nll`; ``right`` (m,) is 1 where the class is right; ``share`` (m,) is the weight of an
    image in a mean, and sums to 1; ``units`` (m,) are equal for images that belong together.

    Standard errors are between units: a copy of an image is no further evidence.
    """

    images: IntArray
    loss: Floats
    right: Floats
    share: Floats
    units: IntArray

    @property
    def accuracy(self) -> float:
        """Share of images that are right; balanced where the weights were."""
        return float(self.right @ self.share)

    @property
    def nll(self) -> float:
        """Mean loss in nats."""
        return float(self.loss @ self.share)

    def saving(self, other: HeldOut) -> tuple[float, float]:
        """Reduction of the NLL against ``other`` on the same images; standard error of the paired difference."""
        return self._sum(self.share * (other.loss - self.loss))

    def gain(self, other: HeldOut) -> tuple[float, float]:
        """Gain in accuracy over ``other`` on the same images; standard error of the paired difference."""
        return self._sum(self.share * (self.right - other.right))

    def _sum(self, parts: Floats) -> tuple[float, float]:
        """The sum over images, and its standard error; of a single unit it is not known, and infinite."""
        _, unit_of = np.unique(self.units, return_inverse=True)
        of_units = np.bincount(unit_of, weights=parts)
        error = float(of_units.std(ddof=1) * np.sqrt(len(of_units))) if len(of_units) > 1 else float("inf")
        return float(parts.sum()), error


def held_out(
    features: NDArray[np.float32],
    labels: IntArray,
    *,
    also: NDArray[np.float32] | None = None,
    keys: NDArray[Any] | None = None,
    seed: int,
    weights: Floats | None = None,
    device: torch.device | None = None,
    config: PenaltyConfig,
) -> HeldOut | None:
    """Cross-validate the head on features (n, d) of images with labels (n,) and weights (n,); ``device``: a GPU to use.

    ``also`` (n, d): features of another view of each image, to which heads are fitted too, though never where the image
    is held out; they are not predicted. ``keys`` (n,): equal for images that belong together, which share a fold. Folds
    are drawn from labels, keys and seed alone, so that two kinds of features are compared image by image. None where a
    class has a single image, or no fit converges.
    """
    _, labels = np.unique(labels, return_inverse=True)
    folds = min(config.folds, int(np.bincount(labels).min()))
    if folds < 2:
        return None
    drawn = drawn_folds(labels, folds, units=_units(len(labels), keys, seed))
    classes, images = int(labels.max()) + 1, len(labels)
    threads = available_cores()
    with one_thread():
        scaling, every, times = fit_scaling(features, weights=weights), drawn, 1
        rows = scaling(features)
        if also is not None:
            rows, times = np.concatenate([rows, scaling(also)]), 2
            every = Folds(np.tile(drawn.numbers, times), np.tile(drawn.units, times))
        found = out_of_fold(
            rotate(rows, most=config.rotate_up_to, threads=threads).rows,
            np.tile(labels, times),
            classes,
            every,
            weights=None if weights is None else np.tile(weights, times),
            threads=threads,
            device=device,
            config=config,
        ).of_first(images)
    position = choose(found, units=drawn.units, weights=weights, config=config)
    if position is None:
        return None
    losses, share = found.losses(weights)
    right = found.right[position].astype(np.float64)
    return HeldOut(found.images, losses[position], right, share, drawn.units[found.images])


def _units(count: int, keys: NDArray[Any] | None, seed: int) -> IntArray:
    """Unit numbers (n,), drawn by the seed; images of equal keys share one."""
    drawn = np.random.default_rng(seed).permutation(count)
    if keys is None:
        return drawn
    _, first, key_of = np.unique(keys, return_index=True, return_inverse=True)
    return drawn[first[key_of]]

"""Derived members: new models made from the given ones, and the out-of-fold score of the choice among them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from tl_kit import metrics
from tl_kit.combining.calibration import fit_temperature, tempered
from tl_kit.config import TemperatureConfig

__all__ = ["Derived", "Loss", "choose_out_of_fold", "loss_on", "tried"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Key = TypeVar("Key")


@dataclass(frozen=True, eq=False, kw_only=True)
class Derived:
    """New members that ``rule`` made.

    ``write`` saves them as checkpoints below a folder and returns their paths. ``record`` says, in plain JSON, how they
    were made. ``fallback``: the reason why the best member is returned instead, if it is.
    """

    rule: str
    record: Mapping[str, Any]
    write: Callable[[Path], list[Path]]
    fallback: str | None = None


class Loss(NamedTuple):
    """The error rate and the bounded NLL: losses are ordered by the error rate, ties by the bounded NLL.

    ``bounded`` is :func:`tl_kit.metrics.bounded_nll`, which no single image can dominate; ``nll`` is only recorded.
    """

    error: float
    bounded: float
    nll: float

    def no_worse_than(self, other: Loss) -> bool:
        """True where neither the error nor the bounded NLL is higher."""
        return self.error <= other.error and self.bounded <= other.bounded


def loss_on(probabilities: FloatArray, labels: IntArray, *, calibrate: bool) -> Loss:
    """The loss of probabilities (n, k) on labels (n,); with ``calibrate``, the NLL at the best-fitting temperature.

    Candidates get a temperature afterwards. So the lower confidence of averaged weights must count neither against them
    nor for them (Ashukha et al. 2020).
    """
    error = 1 - metrics.accuracy(probabilities, labels)
    if calibrate:
        best = fit_temperature(probabilities, labels, TemperatureConfig(prior_images=0))
        probabilities = tempered(probabilities, best)
    return Loss(error, metrics.bounded_nll(probabilities, labels), metrics.nll(probabilities, labels))


def choose_out_of_fold(
    choose: Callable[[Callable[[Key], Loss]], Key],
    probabilities: Callable[[Key], FloatArray],
    labels: IntArray,
    *,
    folds: IntArray,
    calibrate: bool,
) -> tuple[Key, FloatArray]:
    """The option that ``choose`` takes on all images, and out-of-fold predictions (n, k) of this way of choosing.

    An image is predicted by the option that ``choose`` takes on the other folds.

    Args:
        choose: returns an option, given the function that computes the loss of an option.
        probabilities: returns an option's probabilities for all validation images (n, k); should cache its results.
        labels: (n,).
        folds: the fold of each image (n,).
        calibrate: whether losses are those at the best temperature.
    """

    def loss_where(rows: NDArray[np.bool_]) -> Callable[[Key], Loss]:
        return cache(lambda key: loss_on(probabilities(key)[rows], labels[rows], calibrate=calibrate))

    chosen = choose(loss_where(np.ones(len(labels), dtype=bool)))
    pooled = np.empty_like(probabilities(chosen))
    for fold in np.unique(folds):
        out = folds == fold
        pooled[out] = probabilities(choose(loss_where(~out)))[out]
    return chosen, pooled


def tried(
    choose: Callable[[Callable[[Key], Loss]], Key],
    probabilities: Callable[[Key], FloatArray],
    labels: IntArray,
    *,
    calibrate: bool,
) -> dict[Key, Loss]:
    """The loss, on all validation images, of each option that ``choose`` asks for."""
    found: dict[Key, Loss] = {}

    def loss(key: Key) -> Loss:
        if key not in found:
            found[key] = loss_on(probabilities(key), labels, calibrate=calibrate)
        return found[key]

    choose(loss)
    return found

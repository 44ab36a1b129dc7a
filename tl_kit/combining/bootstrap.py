"""Paired bootstrap: the interval of a difference between two classifiers on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tl_kit import metrics
from tl_kit.errors import ConfigError

__all__ = [
    "Gain",
    "paired_bootstrap",
    "paired_gain",
    "paired_interval",
    "standard_error",
    "worse_by_more_than_noise",
]

# The exact sign test needs six images, all to one side, for p < 0.05: 2 · 0.5⁶ = 0.031, 2 · 0.5⁵ = 0.063.
_FEWEST_DISAGREEMENTS = 6
_ROUNDING = 1e-9  # differences between equal predictions that were summed in another order
_DRAWN_AT_ONCE = 2**22


def standard_error(differences: NDArray[np.float64]) -> float:
    """Standard error s / √n of the mean of differences (n,), s with n - 1 in its denominator; ∞ where n is 1."""
    return float(differences.std(ddof=1) / np.sqrt(differences.size)) if differences.size > 1 else float("inf")


def worse_by_more_than_noise(differences: NDArray[np.float64], *, errors: float = 1.0) -> bool:
    """True where the mean of paired differences (n,), one an image, is above ``errors`` of its standard errors."""
    return bool(differences.mean() > errors * standard_error(differences) + _ROUNDING)


class Gain(TypedDict):
    """Difference in test accuracy and NLL between a predictor and its reference, with 95 % intervals [lo, hi].

    A better predictor has a positive difference in accuracy and a negative one in NLL.
    """

    accuracy: float
    ci95: list[float]
    nll: float
    nll_ci95: list[float]


def paired_gain(
    probabilities: NDArray[np.float64],
    others: Sequence[NDArray[np.float64]],
    labels: NDArray[np.int64],
    *,
    samples: int,
    seed: int,
) -> Gain:
    """Gain of predictions (n, k) over others on the same images (n,): over the mean of their hits and losses.

    Raises as :func:`paired_interval`.
    """
    hits, losses = (np.stack([f(other, labels) for other in others]) for f in (metrics.correct, metrics.image_losses))
    correct, loss = metrics.correct(probabilities, labels), metrics.image_losses(probabilities, labels)
    if len(others) == 1:
        accuracy = paired_bootstrap(hits[0], correct, samples=samples, seed=seed)
    else:
        accuracy = paired_interval(correct - hits.mean(axis=0), samples=samples, seed=seed)
    nll = paired_interval(loss - losses.mean(axis=0), samples=samples, seed=seed)
    return {"accuracy": accuracy[0], "ci95": list(accuracy[1:]), "nll": nll[0], "nll_ci95": list(nll[1:])}


def paired_bootstrap(
    correct_a: ArrayLike, correct_b: ArrayLike, *, samples: int, seed: int
) -> tuple[float, float, float]:
    """Gain in accuracy from a to b on the same n images, with its 95 % percentile interval: ``(gain, lo, hi)``.

    Images are resampled with replacement, both classifiers' results together (Efron & Tibshirani 1993, chapter 13).
    Only the numbers of images that b wins and loses in a resample matter. They are multinomial, so they are drawn
    directly, in memory that does not depend on n.

    If the two differ on fewer than six images, the bootstrap interval is too narrow (one image would give width 0), and
    no two-sided sign test at 5 % could distinguish them. The interval is then widened to contain 0.

    Args:
        correct_a: shape (n,), bool: whether a is right.
        correct_b: shape (n,), bool: whether b is right.
        samples: number of resamples.
        seed: equal seeds give equal intervals.

    Raises:
        ConfigError: ``samples`` is below 1.
        ValueError: the arrays are empty, not bool, or of different shapes.
    """
    if samples < 1:
        raise ConfigError(f"bootstrap must be at least 1 resample, got {samples}")
    a, b = np.asarray(correct_a), np.asarray(correct_b)
    if a.ndim != 1 or a.shape != b.shape or a.size == 0 or a.dtype != np.bool_ or b.dtype != np.bool_:
        raise ValueError(f"want two bool arrays (n,) with n > 0, got {a.dtype} {a.shape} and {b.dtype} {b.shape}")
    images, wins, losses = a.size, int((b & ~a).sum()), int((a & ~b).sum())
    shares = np.array([wins, losses, images - wins - losses]) / images
    counts = np.random.default_rng(seed).multinomial(images, shares, size=samples)
    lo, hi = np.quantile((counts[:, 0] - counts[:, 1]) / images, [0.025, 0.975])
    if wins + losses < _FEWEST_DISAGREEMENTS:
        lo, hi = min(lo, 0.0), max(hi, 0.0)
    return (wins - losses) / images, float(lo), float(hi)


def paired_interval(differences: ArrayLike, *, samples: int, seed: int) -> tuple[float, float, float]:
    """Mean of a difference per image, such as of two losses, with its 95 % percentile interval: ``(mean, lo, hi)``.

    Like :func:`paired_bootstrap`, for differences of any size: images are resampled with replacement. If fewer than six
    images differ from 0, the interval is widened to contain 0, for the same reason. A difference below 1e-9 is a
    rounding error, which may have the same sign on every image, so it counts as 0.

    Args:
        differences: shape (n,), finite, n > 0.
        samples: number of resamples.
        seed: equal seeds give equal intervals.

    Raises:
        ConfigError: ``samples`` is below 1.
        ValueError: the array is empty, of another shape, or not finite.
    """
    if samples < 1:
        raise ConfigError(f"bootstrap must be at least 1 resample, got {samples}")
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
        raise ValueError(f"want finite differences (n,) with n > 0, got shape {values.shape}")
    values = np.where(np.abs(values) < _ROUNDING, 0.0, values)
    rng = np.random.default_rng(seed)
    rows = max(1, _DRAWN_AT_ONCE // values.size)
    means = [
        values[rng.integers(0, values.size, (min(rows, samples - start), values.size))].mean(axis=1)
        for start in range(0, samples, rows)
    ]
    lo, hi = np.quantile(np.concatenate(means), [0.025, 0.975])
    if np.count_nonzero(values) < _FEWEST_DISAGREEMENTS:
        lo, hi = min(lo, 0.0), max(hi, 0.0)
    return float(values.mean()), float(lo), float(hi)

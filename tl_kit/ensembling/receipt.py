"""The receipt: what each member scores, what the ensemble scores, and whether the difference is more than noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tl_kit import metrics
from tl_kit.errors import ConfigError

__all__ = [
    "Gain",
    "MemberScores",
    "Receipt",
    "SplitPredictions",
    "SplitScores",
    "best_member",
    "build_receipt",
    "paired_bootstrap",
    "verdict",
]

# The exact sign test needs six images, all to one side, for p < 0.05: 2 · 0.5⁶ = 0.031, 2 · 0.5⁵ = 0.063.
_FEWEST_DISAGREEMENTS = 6


class SplitScores(TypedDict):
    """Scores as :func:`tl_kit.metrics.summary` gives them; ``test`` is ``None`` without a test split."""

    val: dict[str, float]
    test: dict[str, float] | None


class MemberScores(SplitScores):
    """One member's scores, and where it lies."""

    checkpoint: str


class Gain(TypedDict):
    """Test accuracy of the ensemble less that of the best member by validation, with its 95 % interval [lo, hi]."""

    accuracy: float
    ci95: list[float]


class Receipt(TypedDict):
    """Plain numbers, strings, lists and dicts, ready for JSON; ``gain`` is ``None`` without a test split."""

    rule: str
    members: list[MemberScores]
    ensemble: SplitScores
    gain: Gain | None


@dataclass(frozen=True, eq=False, kw_only=True)
class SplitPredictions:
    """Probabilities on one split: of the members (m, n, k), in one class order, and of the ensemble (n, k).

    ``labels`` are integers of shape (n,).

    Raises:
        ValueError: the shapes do not fit each other.
    """

    members: NDArray[np.float64]
    ensemble: NDArray[np.float64]
    labels: NDArray[np.int64]

    def __post_init__(self) -> None:
        members, ensemble, labels = np.shape(self.members), np.shape(self.ensemble), np.shape(self.labels)
        if len(members) != 3 or members[1:] != ensemble or members[1:2] != labels:
            raise ValueError(f"want (m, n, k), (n, k) and (n,), got {members}, {ensemble} and {labels}")


def paired_bootstrap(
    correct_a: ArrayLike, correct_b: ArrayLike, *, samples: int, seed: int
) -> tuple[float, float, float]:
    """Gain in accuracy from a to b on the same n images, with its 95 % percentile interval: ``(gain, lo, hi)``.

    Images are resampled with replacement, both classifiers' results together (Efron & Tibshirani 1993, chapter 13).
    Of a resample only the numbers of images that b wins and loses matter, and these are multinomial: they are drawn
    directly, in memory that does not depend on n.

    Where the two differ on fewer than six images the bootstrap is too sure of itself (one image would give an interval
    of width 0), and no two-sided sign test at 5 % could tell them apart: the interval is then widened to hold 0.

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


def build_receipt(
    rule: str,
    checkpoints: Sequence[str],
    *,
    val: SplitPredictions,
    test: SplitPredictions | None,
    samples: int,
    seed: int,
) -> Receipt:
    """Scores of all members and of the ensemble, and the ensemble's gain on test over the best member by validation.

    Args:
        rule: the rule's name, as shown.
        checkpoints: the members' folders, in the order of the predictions' first axis.
        val: predictions on the validation split: they alone choose the member to compare with.
        test: predictions on the test split, ``None`` if there is none.
        samples: resamples of :func:`paired_bootstrap`.
        seed: of the resamples.

    Raises:
        ConfigError: ``samples`` is below 1.
        ValueError: the numbers of members do not agree, or values are no probabilities.
    """
    for split in (val, test):
        if split is not None and (len(split.members) != len(checkpoints) or not checkpoints):
            raise ValueError(f"want at least one member, got {len(checkpoints)} names for {len(split.members)} members")
    members: list[MemberScores] = [
        {
            "checkpoint": checkpoint,
            "val": metrics.summary(val.members[index], val.labels),
            "test": None if test is None else metrics.summary(test.members[index], test.labels),
        }
        for index, checkpoint in enumerate(checkpoints)
    ]
    ensemble: SplitScores = {
        "val": metrics.summary(val.ensemble, val.labels),
        "test": None if test is None else metrics.summary(test.ensemble, test.labels),
    }
    gain = None if test is None else _gain(test, best_member(members), samples=samples, seed=seed)
    return {"rule": rule, "members": members, "ensemble": ensemble, "gain": gain}


def best_member(members: Sequence[MemberScores]) -> int:
    """Index of the highest validation accuracy; ties go to the lower validation NLL, then to the earlier member."""
    return min(range(len(members)), key=lambda i: (-members[i]["val"]["accuracy"], members[i]["val"]["nll"]))


def verdict(receipt: Receipt) -> str:
    """One sentence for the console: the gain over the best member, and whether it is distinguishable from zero."""
    best = receipt["members"][best_member(receipt["members"])]["checkpoint"]
    gain = receipt["gain"]
    if gain is None:
        return f"Gain over the best member by validation ({best}): not measured, there is no test split."
    lo, hi = (100 * bound for bound in gain["ci95"])
    outcome = "distinguishable from zero" if lo > 0 or hi < 0 else "not distinguishable from zero"
    if hi < 0:
        outcome += ": the best member alone is better"
    points = f"{100 * gain['accuracy']:+.1f} points of test accuracy (95 % interval {lo:+.1f} to {hi:+.1f})"
    return f"Gain over the best member by validation ({best}): {points}, {outcome}."


def _gain(test: SplitPredictions, best: int, *, samples: int, seed: int) -> Gain:
    member, ensemble = (metrics.correct(p, test.labels) for p in (test.members[best], test.ensemble))
    accuracy, lo, hi = paired_bootstrap(member, ensemble, samples=samples, seed=seed)
    return {"accuracy": accuracy, "ci95": [lo, hi]}

"""Choice of an ensemble's members by forward selection (Caruana et al. 2004), and an honest estimate of the chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tl_kit import metrics
from tl_kit.combining.bootstrap import worse_by_more_than_noise
from tl_kit.combining.calibration import fit_temperature, tempered
from tl_kit.combining.canonical_order import canonical_members, stratified_folds
from tl_kit.combining.ensemble_rules import mean
from tl_kit.combining.fitted_rule import FittedRule
from tl_kit.combining.selection import Candidate, with_temperature

__all__ = ["Limits", "MemberChoice", "choose_members"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits on the whole ensemble: the sums of its members' milliseconds an image and of their parameters.

    ``members``: the most of them. None: no limit.
    """

    members: int
    latency: float | None = None
    parameters: float | None = None

    def allow(self, latencies: Sequence[float], parameters: Sequence[float]) -> bool:
        """True where these members together are within all limits."""
        return (
            len(latencies) <= self.members
            and (self.latency is None or sum(latencies) <= self.latency)
            and (self.parameters is None or sum(parameters) <= self.parameters)
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class MemberChoice:
    """The chosen members' numbers, in ascending order, and the mean of their probabilities as a fitted rule.

    ``whole.crossed`` (n, k) are predictions in which an image's fold chose neither the members nor the temperature.
    """

    members: tuple[int, ...]
    whole: Candidate


def choose_members(
    stack: FloatArray,
    labels: IntArray,
    *,
    prefer: str,
    latencies: Sequence[float],
    parameters: Sequence[float],
    limits: Limits,
    folds: int,
    seed: int,
) -> MemberChoice | None:
    """The members whose mean of probabilities validation supports; None if no member is within the limits.

    Members are added one by one, each time the one that gives the mean the lowest NLL. Of the ensembles on this way,
    ``prefer`` "nll" takes that of the lowest NLL; "accuracy" the most accurate of those that are not worse than it by
    more than the standard error of the paired difference; "speed" the fastest of these and of the single members.

    Args:
        stack: probabilities of the validation images, (m, n, k).
        labels: (n,).
        prefer: ``accuracy``, ``nll`` or ``speed``.
        latencies: milliseconds an image, (m,).
        parameters: numbers of parameters, (m,).
        limits: of the whole ensemble.
        folds: for the temperature and for the estimate.
        seed: draws the folds.
    """

    def choose(rows: NDArray[np.bool_]) -> tuple[int, ...]:
        return _choose(stack[:, rows], labels[rows], prefer, latencies, parameters, limits)

    everything = np.ones(len(labels), dtype=bool)
    members = choose(everything)
    if not members:
        return None
    numbers = stratified_folds(labels, folds, seed=seed)
    whole = with_temperature(FittedRule(), mean(stack[list(members)]), labels, folds=numbers, calibrate=len(labels) > 1)
    crossed = np.empty_like(whole.scored)
    for fold in np.unique(numbers):
        out = numbers == fold
        kept = ~out if (~out).any() else everything
        part = list(choose(kept) or members)
        pooled = mean(stack[part])
        scale = fit_temperature(pooled[kept], labels[kept]) if whole.fitted.temperature != 1 else 1.0
        crossed[out] = tempered(pooled[out], scale)
    return MemberChoice(members=members, whole=replace(whole, crossed=crossed))


def _choose(
    stack: FloatArray,
    labels: IntArray,
    prefer: str,
    latencies: Sequence[float],
    parameters: Sequence[float],
    limits: Limits,
) -> tuple[int, ...]:
    """The members by their numbers, in ascending order; empty if none is within the limits."""

    def allowed(members: Sequence[int]) -> bool:
        return limits.allow([latencies[m] for m in members], [parameters[m] for m in members])

    order = [int(member) for member in canonical_members(stack, labels)]
    singles = [(member,) for member in order if allowed((member,))]
    if not singles:
        return ()
    path = [tuple(sorted(members)) for members in _path(stack, labels, order, allowed)]
    losses = {each: metrics.image_losses(mean(stack[list(each)]), labels) for each in (*path, *singles)}
    best = min(path, key=lambda each: (losses[each].mean(), len(each)))
    if prefer == "nll":
        return best
    near = [each for each in losses if each == best or not worse_by_more_than_noise(losses[each] - losses[best])]
    if prefer == "speed":
        return min(near, key=lambda each: (sum(latencies[m] for m in each), losses[each].mean()))

    def accuracy(members: tuple[int, ...]) -> float:
        return metrics.accuracy(mean(stack[list(members)]), labels)

    return max((each for each in near if each in path), key=lambda each: (accuracy(each), -losses[each].mean()))


def _path(
    stack: FloatArray, labels: IntArray, order: Sequence[int], allowed: Callable[[Sequence[int]], bool]
) -> Iterator[tuple[int, ...]]:
    """The ensembles of forward selection, one member more each time, as long as one more is allowed."""
    members: tuple[int, ...] = ()
    while True:
        options = [(*members, m) for m in order if m not in members and allowed((*members, m))]
        if not options:
            return
        members = min(options, key=lambda each: metrics.nll(mean(stack[list(each)]), labels))
        yield members

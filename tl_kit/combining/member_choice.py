"""Choice of an ensemble's members by forward selection (Caruana et al. 2004), and an honest estimate of the chosen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tl_kit import metrics
from tl_kit.combining.bootstrap import worse_by_more_than_noise
from tl_kit.combining.calibration import tempered
from tl_kit.combining.canonical_order import canonical_members, label_probabilities, stratified_folds
from tl_kit.combining.ensemble_rules import mean
from tl_kit.combining.fitted_rule import FittedRule
from tl_kit.combining.selection import Candidate, with_temperature
from tl_kit.config import MemberChoiceConfig

__all__ = ["Limits", "MemberChoice", "choose_members"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_SAME = 1e-6
_NOISE = MemberChoiceConfig()


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
    config: MemberChoiceConfig = _NOISE,
) -> MemberChoice | None:
    """The members whose mean of probabilities validation supports; None if no member is within the limits.

    Members are added to the best one by one, each time the one that gives the mean the lowest NLL, and removed from all
    of them in the same way. Of the ensembles on these two ways, ``prefer`` "accuracy" and "nll" take the largest that
    is not worse than the best by more than ``config.largest_within`` standard errors of the paired difference: in NLL,
    and for "accuracy" in the share of errors too. More members vary less, so few images are no reason for fewer
    members. A member that alone is worse than the best single one by more than ``config.worse_alone`` standard errors
    is taken only where the ensemble of the lowest NLL has it, or, for "accuracy", one that makes clearly fewer errors;
    else a larger mean would be taken that it makes slightly worse. "speed" takes the fastest, single members included,
    within ``config.fastest_within`` standard errors.

    Args:
        stack: probabilities of the validation images, (m, n, k).
        labels: (n,).
        prefer: ``accuracy``, ``nll`` or ``speed``.
        latencies: milliseconds an image, (m,).
        parameters: numbers of parameters, (m,).
        limits: of the whole ensemble.
        folds: for the temperature and for the estimate.
        seed: draws the folds.
        config: widths of the noise.
    """
    cost = _Cost(latencies, parameters, limits)

    def choose(rows: NDArray[np.bool_]) -> tuple[int, ...]:
        return _choose(stack[:, rows], labels[rows], prefer, cost, config)

    everything = np.ones(len(labels), dtype=bool)
    members = choose(everything)
    if not members:
        return None
    numbers = stratified_folds(labels, folds, seed=seed)
    pooled = mean(stack[list(members)])
    whole = with_temperature(FittedRule(), pooled, labels, folds=numbers, calibrate=len(labels) > 1)
    crossed = np.empty_like(whole.scored)
    for fold in np.unique(numbers):
        out = numbers == fold
        kept = ~out if (~out).any() else everything
        pooled = mean(stack[list(choose(kept) or members)])
        part = with_temperature(
            FittedRule(), pooled[kept], labels[kept], folds=numbers[kept], calibrate=int(kept.sum()) > 1
        )
        crossed[out] = tempered(pooled[out], part.fitted.temperature)
    return MemberChoice(members=members, whole=replace(whole, crossed=crossed))


@dataclass(frozen=True)
class _Cost:
    """Milliseconds and parameters of each member, and the limits on their sums."""

    latencies: Sequence[float]
    parameters: Sequence[float]
    limits: Limits

    def allows(self, members: Sequence[int]) -> bool:
        return self.limits.allow([self.latencies[m] for m in members], [self.parameters[m] for m in members])

    def latency(self, members: Sequence[int]) -> float:
        return sum(self.latencies[m] for m in members)


def _choose(
    stack: FloatArray, labels: IntArray, prefer: str, cost: _Cost, config: MemberChoiceConfig
) -> tuple[int, ...]:
    """The members by their numbers, in ascending order; empty if none is within the limits."""
    order = _distinct(stack, labels)
    singles = [(member,) for member in order if cost.allows((member,))]
    if not singles:
        return ()
    given = label_probabilities(stack, labels)
    path = _path(given, order, cost)
    score = cache(partial(_score, stack, labels))
    losses = {each: score(each).losses for each in (*path, *singles)}
    if prefer == "speed":
        near = _near(losses, config.fastest_within)
        return min(near, key=lambda each: (cost.latency(each), losses[each].mean()))
    wrong = {each: score(each).wrong for each in path}
    best, fewest = _lowest(losses, path), _lowest(wrong, path)
    able = {*best, *sum(_near({each: losses[each] for each in singles}, config.worse_alone), ())}
    if prefer == "accuracy" and worse_by_more_than_noise(wrong[best] - wrong[fewest]):
        able.update(fewest)
    path = _path(given, [member for member in order if member in able], cost)
    near = _near({each: score(each).losses for each in path}, config.largest_within)
    if prefer == "accuracy":
        near = _near({each: score(each).wrong for each in near}, config.largest_within)
    return max(near, key=lambda each: (len(each), -score(each).losses.mean()))


class _Score(NamedTuple):
    """An ensemble's loss on each image (n,), and 1 for each image (n,) that it gets wrong."""

    losses: FloatArray
    wrong: FloatArray


def _score(stack: FloatArray, labels: IntArray, members: tuple[int, ...]) -> _Score:
    pooled = mean(stack[list(members)])
    return _Score(metrics.image_losses(pooled, labels), (~metrics.correct(pooled, labels)).astype(np.float64))


def _path(given: FloatArray, order: Sequence[int], cost: _Cost) -> list[tuple[int, ...]]:
    """The ensembles on both ways, each once, their members in ascending order."""
    ways = (*_adding(given, order, cost), *_removing(given, order, cost))
    return list(dict.fromkeys(tuple(sorted(members)) for members in ways))


def _lowest(losses: Mapping[tuple[int, ...], FloatArray], among: Iterable[tuple[int, ...]]) -> tuple[int, ...]:
    """The ensemble of the lowest mean loss; of equal ones, the smallest."""
    return min(among, key=lambda each: (losses[each].mean(), len(each)))


def _near(losses: Mapping[tuple[int, ...], FloatArray], errors: float) -> list[tuple[int, ...]]:
    """The best ensemble, and all that are worse than it by no more than ``errors`` standard errors."""
    best = _lowest(losses, losses)
    worse = (each for each in losses if each != best)
    return [best, *(e for e in worse if not worse_by_more_than_noise(losses[e] - losses[best], errors=errors))]


def _distinct(stack: FloatArray, labels: IntArray) -> list[int]:
    """The members, without copies of another one, such as a run whose guard kept the head that is another member."""
    kept: list[int] = []
    for member in canonical_members(stack, labels):
        if not kept or not np.isclose(stack[member], stack[kept], atol=_SAME).all(axis=(1, 2)).any():
            kept.append(int(member))
    return kept


def _adding(given: FloatArray, order: Sequence[int], cost: _Cost) -> Iterator[tuple[int, ...]]:
    """One member more each time, as long as one more is allowed. ``given`` (m, n): the labels' probabilities."""
    members: tuple[int, ...] = ()
    while True:
        options = [m for m in order if m not in members and cost.allows((*members, m))]
        if not options:
            return
        losses = _losses((given[list(members)].sum(axis=0) + given[options]) / (len(members) + 1))
        members = (*members, options[int(np.argmin(losses))])
        yield members


def _removing(given: FloatArray, order: Sequence[int], cost: _Cost) -> Iterator[tuple[int, ...]]:
    """From all members to one; those of them that are allowed."""
    members = tuple(order)
    while members:
        if cost.allows(members):
            yield members
        rows = given[list(members)]
        out = int(np.argmin(_losses((rows.sum(axis=0) - rows) / max(1, len(members) - 1))))
        members = (*members[:out], *members[out + 1 :])


def _losses(probabilities: FloatArray) -> FloatArray:
    """The NLL (options,) of the labels' probabilities (options, n)."""
    losses: FloatArray = -np.log(np.maximum(probabilities, np.finfo(np.float64).eps)).mean(axis=1)
    return losses

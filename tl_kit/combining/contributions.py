"""Members' contributions: the ensemble without each one, and the smallest subset within the noise of the ensemble."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from tl_kit import metrics
from tl_kit.combining.bootstrap import paired_interval
from tl_kit.combining.fitted_rule import FittedRule
from tl_kit.combining.predictions import SplitPredictions
from tl_kit.combining.selection import Candidate, fit_candidate
from tl_kit.config import RuleFitConfig
from tl_kit.metrics import image_losses

__all__ = ["Contribution", "Subset", "Subsets", "leave_one_out", "smallest_subset"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


class Contribution(TypedDict):
    """A member's contribution on one split: what the ensemble loses without it, positive if the member helps.

    ``accuracy``: the ensemble's accuracy minus that without the member; ``nll``: the NLL without the member minus the
    ensemble's.
    """

    accuracy: float
    nll: float


class Subset(TypedDict):
    """A subset of an ensemble's members, numbered from 1, with its accuracy and NLL on validation.

    ``nll_over_whole`` is its NLL minus that of the whole ensemble, ``ci95`` the paired-bootstrap interval [lo, hi] of
    this difference. ``test``: accuracy and NLL on the test split, if there is one.
    """

    members: list[int]
    accuracy: float
    nll: float
    nll_over_whole: float
    ci95: list[float]
    test: dict[str, float] | None


@dataclass(frozen=True, eq=False, kw_only=True)
class Subsets:
    """The chosen rule, fitted again to subsets of the members on validation probabilities (m, n, k) and labels (n,)."""

    whole: Candidate
    stack: FloatArray
    labels: IntArray
    config: RuleFitConfig
    seed: int

    def fit(self, members: Sequence[int]) -> Candidate:
        """The rule fitted to these members, with the ensemble's penalty, and a temperature if the ensemble has one."""
        if len(members) == len(self.stack):
            return self.whole
        fitted = self.whole.fitted
        config = replace(self.config, stack_c=(fitted.parameters["c"],)) if "c" in fitted.parameters else self.config
        return fit_candidate(
            fitted.rule,
            self.stack[list(members)],
            self.labels,
            config=config,
            calibrate=fitted.temperature != 1,
            seed=self.seed,
        )

    def losses(self, members: Sequence[int]) -> FloatArray:
        """Each validation image's NLL out of fold, (n,)."""
        return image_losses(self.fit(members).scored, self.labels)


def leave_one_out(
    rule: FittedRule, members: int, *, validation: Subsets | None, test: SplitPredictions | None
) -> list[dict[str, Contribution | None] | None]:
    """Each member's :class:`Contribution` on ``val`` (out of fold) and on ``test`` (``None`` without a test split).

    Args:
        rule: fitted to all members.
        members: their number, at least two.
        validation: the predictions to which the rule is fitted again; None only for a rule that is not fitted.
        test: predictions on the test split, which select nothing.
    """
    if validation is None and test is None:
        return [None] * members
    found: list[dict[str, Contribution | None] | None] = []
    for left_out in range(members):
        kept = [member for member in range(members) if member != left_out]
        without, value, on_test = rule, None, None
        if validation is not None:
            candidate = validation.fit(kept)
            without = candidate.fitted
            value = _contribution(validation.whole.scored, candidate.scored, validation.labels)
        if test is not None:
            on_test = _contribution(rule(test.members), without(test.members[kept]), test.labels)
        found.append({"val": value, "test": on_test})
    return found


def smallest_subset(subsets: Subsets, *, test: SplitPredictions | None, samples: int) -> Subset:
    """The smallest subset of members whose validation NLL is not distinguishably worse than the whole ensemble's.

    That is, the lower end of the 95 % paired-bootstrap interval of the difference is at most 0. The candidates come
    from adding members one by one, each time the one that gives the lowest NLL, and from removing them in the same way.
    For each size, the subset of lower NLL counts.
    """
    whole = subsets.losses(range(len(subsets.stack)))
    best = _paths(subsets)
    for size in sorted(best):
        members, losses = best[size]
        difference, lo, hi = paired_interval(losses - whole, samples=samples, seed=subsets.seed)
        if lo <= 0:
            break
    candidate = subsets.fit(members)
    on_test = None
    if test is not None:
        pooled = candidate.fitted(test.members[list(members)])
        on_test = {"accuracy": metrics.accuracy(pooled, test.labels), "nll": metrics.nll(pooled, test.labels)}
    return {
        "members": [member + 1 for member in members],
        "accuracy": metrics.accuracy(candidate.scored, subsets.labels),
        "nll": float(losses.mean()),
        "nll_over_whole": difference,
        "ci95": [lo, hi],
        "test": on_test,
    }


def _paths(subsets: Subsets) -> dict[int, tuple[tuple[int, ...], FloatArray]]:
    """For each size, the better of the subsets found by adding and by removing members, and its losses."""
    everyone = tuple(range(len(subsets.stack)))
    best: dict[int, tuple[tuple[int, ...], FloatArray]] = {}
    added: tuple[int, ...] = ()
    while len(added) < len(everyone):
        added = _step(subsets, [tuple(sorted((*added, m))) for m in everyone if m not in added], best)
    left = everyone
    while len(left) > 1:
        left = _step(subsets, [tuple(m for m in left if m != out) for out in left], best)
    return best


def _step(
    subsets: Subsets, options: Sequence[tuple[int, ...]], best: dict[int, tuple[tuple[int, ...], FloatArray]]
) -> tuple[int, ...]:
    """The option of lowest NLL; it is recorded if it is the best of its size."""
    losses = [subsets.losses(option) for option in options]
    index = int(np.argmin([loss.mean() for loss in losses]))
    size = len(options[index])
    if size not in best or losses[index].mean() < best[size][1].mean():
        best[size] = options[index], losses[index]
    return options[index]


def _contribution(whole: FloatArray, without: FloatArray, labels: IntArray) -> Contribution:
    return {
        "accuracy": metrics.accuracy(whole, labels) - metrics.accuracy(without, labels),
        "nll": metrics.nll(without, labels) - metrics.nll(whole, labels),
    }

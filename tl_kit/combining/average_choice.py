"""Choice of a weight average by validation scores: uniform, greedy, or interpolated between two members.

Members are numbers 0..m-1. An average is scored only when its score is needed, since scoring may cost passes over the
images. An average is chosen only if it is worse than the best member in neither accuracy nor NLL. This module does not
deal with networks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from tl_kit.combining.derived import Loss

__all__ = ["Mix", "Options", "Score", "alone", "greedy_soup", "uniform_soup", "wise_ft"]


@dataclass(frozen=True)
class Mix:
    """A weight average: the members' weights, which sum to 1, and whether BatchNorm's statistics are re-estimated."""

    weights: tuple[float, ...]
    reestimated: bool = False

    @property
    def member(self) -> int | None:
        """The member whose weight is 1; None if several members have a weight."""
        return self.weights.index(1.0) if 1.0 in self.weights else None


Score: TypeAlias = Callable[[Mix], Loss]
"""A loss on validation images."""

Options: TypeAlias = Callable[[Sequence[float]], Sequence[Mix]]
"""Returns the mixes of given weights (of any scale): with averaged and, if there are any, re-estimated statistics."""


def alone(member: int, members: int) -> Mix:
    """The mix that is one unchanged member."""
    return Mix(tuple(float(index == member) for index in range(members)))


def uniform_soup(members: int, options: Options, score: Score) -> Mix:
    """The average of all members, or the best member alone if that average is less accurate or has a higher NLL."""
    best = min((alone(member, members) for member in range(members)), key=score)
    return _guarded(options([1.0] * members), best, score)


def greedy_soup(members: int, options: Options, score: Score) -> Mix:
    """Greedy soup: members join in order of their own loss, if the average does not get worse (Wortsman et al. 2022).

    It starts with the best member, so the result is worse than that member in neither accuracy nor NLL.
    """
    order = sorted(range(members), key=lambda member: score(alone(member, members)))
    kept, best = {order[0]}, alone(order[0], members)
    for member in order[1:]:
        together = kept | {member}
        trial = options([float(index in together) for index in range(members)])
        if any(score(mix).no_worse_than(score(best)) for mix in trial):
            kept, best = together, _guarded(trial, best, score)
    return best


def wise_ft(probe: int, alphas: Iterable[float], options: Options, score: Score) -> Mix:
    """(1 - α) θ_probe + α θ_other, with the α of lowest NLL (Wortsman et al. 2022, "Robust fine-tuning").

    Only mixes that are worse than neither member in accuracy or NLL are candidates. Ties go to the smallest α.
    """

    def weights(alpha: float) -> tuple[float, float]:
        return (1 - alpha, alpha) if probe == 0 else (alpha, 1 - alpha)

    best = min((alone(member, 2) for member in (probe, 1 - probe)), key=score)
    return _guarded([mix for alpha in sorted(alphas) for mix in options(weights(alpha))], best, score)


def _guarded(mixes: Iterable[Mix], best: Mix, score: Score) -> Mix:
    """The mix of lowest NLL among those that are no worse than ``best``; ``best`` where every mix is worse."""
    sound = [mix for mix in mixes if score(mix).no_worse_than(score(best))]
    return min(sound, key=lambda mix: score(mix).bounded, default=best)

"""Which average of weights to take: uniform, greedy, or between two, by what validation says of each.

Members are numbers 0..m-1. What an average scores is asked for when it is needed: each answer may cost passes over the
images. Nothing here knows of networks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["Mix", "Options", "Score", "alone", "greedy_soup", "uniform_soup", "wise_ft"]


@dataclass(frozen=True)
class Mix:
    """Weights of the members in an average, which sum to 1, and whether BatchNorm's statistics are estimated anew."""

    weights: tuple[float, ...]
    reestimated: bool = False

    @property
    def member(self) -> int | None:
        """The member whose weight is 1; None in a true average."""
        return self.weights.index(1.0) if 1.0 in self.weights else None


Score: TypeAlias = Callable[[Mix], float]
"""A loss on validation images: the lower the better."""

Options: TypeAlias = Callable[[Sequence[float]], Sequence[Mix]]
"""From weights, in any scale, to the mixes to choose among: statistics as averaged and, if any, as re-estimated."""


def alone(member: int, members: int) -> Mix:
    """One of the members as it is."""
    return Mix(tuple(float(index == member) for index in range(members)))


def uniform_soup(members: int, options: Options, score: Score) -> Mix:
    """The average of all; or the best member alone, where the average's loss is higher."""
    soup = min(options([1.0] * members), key=score)
    best = min((alone(member, members) for member in range(members)), key=score)
    return soup if score(soup) <= score(best) else best


def greedy_soup(members: int, options: Options, score: Score) -> Mix:
    """Members join in order of their own loss, each kept if the average's loss does not rise (Wortsman et al. 2022).

    It starts with the best member alone, so it is never worse than that.
    """
    order = sorted(range(members), key=lambda member: score(alone(member, members)))
    kept, best = {order[0]}, alone(order[0], members)
    for member in order[1:]:
        trial = min(options([float(index in kept or index == member) for index in range(members)]), key=score)
        if score(trial) <= score(best):
            kept.add(member)
            best = trial
    return best


def wise_ft(probe: int, alphas: Iterable[float], options: Options, score: Score) -> Mix:
    """(1 - α) θ_probe + α θ_other of two members, with the best α (Wortsman et al. 2022, "Robust fine-tuning").

    Among equally good ones, the smallest α.
    """

    def weights(alpha: float) -> tuple[float, float]:
        return (1 - alpha, alpha) if probe == 0 else (alpha, 1 - alpha)

    return min((mix for alpha in sorted(alphas) for mix in options(weights(alpha))), key=score)

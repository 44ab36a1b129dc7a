"""Choice of a weight average by validation scores: uniform, greedy, or interpolated between two members.

Members are numbers 0..m-1. An average is scored only when its score is needed, since that may cost passes over the
images. An average is taken only where it is no worse than the best member, in accuracy and in NLL. This module does
not deal with networks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from tl_kit.combining.derived import Loss

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


Score: TypeAlias = Callable[[Mix], Loss]
"""A loss on validation images."""

Options: TypeAlias = Callable[[Sequence[float]], Sequence[Mix]]
"""From weights, in any scale, to the mixes to choose among: statistics as averaged and, if any, as re-estimated."""


def alone(member: int, members: int) -> Mix:
    """One of the members as it is."""
    return Mix(tuple(float(index == member) for index in range(members)))


def uniform_soup(members: int, options: Options, score: Score) -> Mix:
    """The average of all; or the best member alone, where that average is less accurate or of higher NLL."""
    best = min((alone(member, members) for member in range(members)), key=score)
    return _guarded(options([1.0] * members), best, score)


def greedy_soup(members: int, options: Options, score: Score) -> Mix:
    """Members join in order of their own loss, if the average gets no worse by it (Wortsman et al. 2022).

    It starts with the best member alone, so it is worse than that in neither accuracy nor NLL.
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
    """(1 - α) θ_probe + α θ_other of two members, α of lowest NLL (Wortsman et al. 2022, "Robust fine-tuning").

    Among those that are worse than neither end in accuracy or NLL; the smallest α of equally good ones.
    """

    def weights(alpha: float) -> tuple[float, float]:
        return (1 - alpha, alpha) if probe == 0 else (alpha, 1 - alpha)

    best = min((alone(member, 2) for member in (probe, 1 - probe)), key=score)
    return _guarded([mix for alpha in sorted(alphas) for mix in options(weights(alpha))], best, score)


def _guarded(mixes: Iterable[Mix], best: Mix, score: Score) -> Mix:
    """The mix of lowest NLL among those that are no worse than ``best``; ``best`` where every mix is worse."""
    sound = [mix for mix in mixes if score(mix).no_worse_than(score(best))]
    return min(sound, key=lambda mix: score(mix).bounded, default=best)

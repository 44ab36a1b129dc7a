"""Freezing policies: which parameters train.

A policy is a pure function (groups of parameter names from the input up, names of the classifier's parameters, epoch,
depth) -> names that train in that epoch. A new policy is one function and one line in ``POLICIES``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from timm.models import group_parameters
from torch import nn

from tl_kit.errors import PolicyError, nearest

__all__ = [
    "HEAD_FIRST",
    "POLICIES",
    "Groups",
    "Policy",
    "full",
    "gradual",
    "head",
    "last",
    "lp_ft",
    "parameter_groups",
    "parse_policy",
]

Groups: TypeAlias = Sequence[Sequence[str]]


def head(groups: Groups, classifier: Collection[str], *, epoch: int, depth: int | None) -> frozenset[str]:
    """The classifier alone."""
    return frozenset(classifier)


def last(groups: Groups, classifier: Collection[str], *, epoch: int, depth: int | None) -> frozenset[str]:
    """The last ``depth`` groups, counted from the head, and the classifier."""
    if depth is None:
        raise PolicyError("--policy last needs a number of groups, for example last:2")
    return frozenset(classifier).union(*groups[len(groups) - min(depth, len(groups)) :])


def full(groups: Groups, classifier: Collection[str], *, epoch: int, depth: int | None) -> frozenset[str]:
    """Every parameter."""
    return frozenset(classifier).union(*groups)


def gradual(groups: Groups, classifier: Collection[str], *, epoch: int, depth: int | None) -> frozenset[str]:
    """The classifier and the group before it, and one group more every ``depth`` epochs (Howard & Ruder 2018)."""
    body = [group for group in groups if not set(group) <= set(classifier)]
    return last(body, classifier, epoch=epoch, depth=1 + epoch // (depth or 1))


def lp_ft(groups: Groups, classifier: Collection[str], *, epoch: int, depth: int | None) -> frozenset[str]:
    """Every parameter or, with a ``depth``, the last groups; from a head that has been fitted (Kumar et al. 2022)."""
    return last(groups, classifier, epoch=epoch, depth=len(groups) if depth is None else depth)


POLICIES: dict[str, Callable[..., frozenset[str]]] = {
    "full": full,
    "gradual": gradual,
    "head": head,
    "last": last,
    "lp-ft": lp_ft,
}
HEAD_FIRST = frozenset({"gradual", "lp-ft"})
"""Policies whose head is fitted to the pretrained features before anything else trains."""


@dataclass(frozen=True)
class Policy:
    """A policy by name, with its depth where it has one. ``str(policy)`` is what ``--policy`` takes."""

    name: str
    depth: int | None = None

    def __str__(self) -> str:
        return self.name if self.depth is None else f"{self.name}:{self.depth}"

    def trainable(self, groups: Groups, classifier: Collection[str], *, epoch: int = 0) -> frozenset[str]:
        """Names of the parameters that train in ``epoch``."""
        return POLICIES[self.name](groups, classifier, epoch=epoch, depth=self.depth)


def parse_policy(text: str) -> Policy:
    """``head``, ``last:K``, ``full``, ``lp-ft[:K]`` or ``gradual[:EPOCHS]``.

    Raises PolicyError with the nearest known name.
    """
    name, separator, depth = text.partition(":")
    if name not in POLICIES:
        near = nearest(name, [*POLICIES, "auto"])
        hint = "" if near is None else f"did you mean {near}? "
        raise PolicyError(f"--policy {text}: {hint}known are auto, head, last:K, full, lp-ft[:K] and gradual[:EPOCHS]")
    if name not in ("last", "lp-ft", "gradual"):
        if separator:
            raise PolicyError(f"--policy {text}: {name} takes no depth")
        return Policy(name)
    if name != "last" and not separator:
        return Policy(name, 1 if name == "gradual" else None)
    if not depth.isascii() or not depth.isdigit() or int(depth) < 1:
        what = "the epochs until the next group trains" if name == "gradual" else "a number of groups"
        raise PolicyError(f"--policy {text}: {name} takes {what}, from 1, for example {name}:2")
    return Policy(name, int(depth))


def parameter_groups(model: nn.Module) -> list[list[str]]:
    """timm's coarse groups (stem, stages, head) of a model's parameter names, from the input up."""
    matcher = getattr(model, "group_matcher", None)
    if matcher is None:
        raise PolicyError(f"{type(model).__name__} has no groups in timm; use --policy head or full")
    by_layer: dict[int, list[str]] = group_parameters(model, matcher(coarse=True))
    return [by_layer[index] for index in sorted(by_layer)]

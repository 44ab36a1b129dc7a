"""Ensemble rules: functions that combine the members' probabilities.

A rule takes a stack of shape (m members, n images, k classes), whose columns are in the same class order for every
member, and returns (n, k). A rule with parameters also has a function that fits them to predictions on images that no
member was trained on. A new rule is a function here and a line in :data:`RULES`, sorted from simple to complex.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tl_kit import metrics
from tl_kit.combining.canonical_order import canonical_members, label_probabilities
from tl_kit.combining.simplex_weights import greedy_weights, simplex_weights
from tl_kit.combining.stacking import fit_stack, stacked
from tl_kit.config import RuleFitConfig
from tl_kit.errors import ConfigError, nearest

__all__ = [
    "AUTO",
    "ONE_PASS",
    "RULES",
    "SIMPLEST_FIRST",
    "WEIGHT_RULES",
    "Rule",
    "check_rule",
    "combine",
    "logit_mean",
    "mean",
    "vote",
    "weighted_mean",
]

AUTO = "auto"
"""The name that stands for the rule that validation supports."""

ONE_PASS = ("soup", "greedy-soup", "wise-ft")
"""Rules that make one model of all members: a prediction takes one forward pass."""

WEIGHT_RULES = (*ONE_PASS, "concat")
"""Rules that make new members of the given ones. They need more than predictions: ``ensembling.weight_rules``."""

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_EPS = np.finfo(np.float64).eps


def mean(member_probabilities: ArrayLike) -> FloatArray:
    """Arithmetic mean of the members' probabilities (the linear opinion pool of Stone 1961).

    Raises:
        ValueError: the stack is not (m, n, k) with at least one member, or holds a value that is not finite.
    """
    stack = _validated(member_probabilities)
    result: FloatArray = _sum(stack) / len(stack)
    return result


def logit_mean(member_probabilities: ArrayLike) -> FloatArray:
    """Geometric mean, scaled to sum to 1: softmax(mean_j log p_j), the logarithmic opinion pool (Genest & Zidek 1986).

    Logs are clipped at 2.2e-16, as in :func:`tl_kit.metrics.nll`. Raises as :func:`mean`.
    """
    stack = _validated(member_probabilities)
    return metrics.softmax(_sum(np.log(np.maximum(stack, _EPS))) / len(stack))


def vote(member_probabilities: ArrayLike) -> FloatArray:
    """Plurality vote: p_c = (v_c + p̄_c) / (m + 1), with v_c members of m for class c, and p̄ their mean probabilities.

    The class with the most votes has the highest p, and ties go to the higher p̄: a member that votes for a rather than
    b has p_a ≥ p_b, so p̄_b - p̄_a < 1, less than one vote. A member that gives several classes the same highest
    probability votes for the one with the highest p̄. Raises as :func:`mean`.
    """
    stack = _validated(member_probabilities)
    pooled = mean(stack)
    highest = stack == stack.max(axis=2, keepdims=True)
    winners = np.where(highest, pooled, -1.0).argmax(axis=2)
    votes = (winners[:, :, None] == np.arange(stack.shape[2])).sum(axis=0)
    result: FloatArray = (votes + pooled) / (len(stack) + 1)
    return result


def weighted_mean(member_probabilities: ArrayLike, *, weights: ArrayLike) -> FloatArray:
    """Σ_j w_j p_j for weights (m,) on the simplex. Raises as :func:`mean`."""
    stack = _validated(member_probabilities)
    return _sum(np.asarray(weights, dtype=np.float64)[:, None, None] * stack)


@dataclass(frozen=True)
class Rule:
    """An ensemble rule: ``pool`` combines probabilities, ``fit`` finds the parameters (plain JSON; None without any).

    ``shapes(members, classes)`` gives each parameter's shape, () for a number.
    """

    pool: Callable[..., FloatArray]
    fit: Callable[[FloatArray, IntArray, RuleFitConfig, int], dict[str, Any]] | None = None
    shapes: Callable[[int, int], Mapping[str, tuple[int, ...]]] = lambda members, classes: {}


def _fit_weighted(stack: FloatArray, labels: IntArray, config: RuleFitConfig, seed: int) -> dict[str, Any]:
    order = canonical_members(stack, labels)
    weights = simplex_weights(label_probabilities(stack[order], labels))
    return {"weights": weights[np.argsort(order)].tolist()}


def _fit_greedy(stack: FloatArray, labels: IntArray, config: RuleFitConfig, seed: int) -> dict[str, Any]:
    order = canonical_members(stack, labels)
    weights = greedy_weights(
        label_probabilities(stack[order], labels),
        rounds=config.greedy_rounds,
        bags=config.greedy_bags,
        share=config.greedy_share,
        seed=seed,
    )
    return {"weights": weights[np.argsort(order)].tolist()}


def _fit_stack(stack: FloatArray, labels: IntArray, config: RuleFitConfig, seed: int) -> dict[str, Any]:
    order = canonical_members(stack, labels)
    coefficients, intercepts, strength = fit_stack(stack[order], labels, config=config, seed=seed)
    return {
        "coefficients": coefficients[:, np.argsort(order)].tolist(),
        "intercepts": intercepts.tolist(),
        "c": strength,
    }


def _weight_shapes(members: int, classes: int) -> dict[str, tuple[int, ...]]:
    return {"weights": (members,)}


def _stack_shapes(members: int, classes: int) -> dict[str, tuple[int, ...]]:
    return {"coefficients": (classes, members, classes), "intercepts": (classes,), "c": ()}


def _pool_stack(stack: ArrayLike, *, coefficients: ArrayLike, intercepts: ArrayLike, c: float) -> FloatArray:
    return stacked(_validated(stack), coefficients=coefficients, intercepts=intercepts)


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "mean": Rule(mean),
        "logit-mean": Rule(logit_mean),
        "vote": Rule(vote),
        "weighted": Rule(weighted_mean, _fit_weighted, _weight_shapes),
        "greedy": Rule(weighted_mean, _fit_greedy, _weight_shapes),
        "stack": Rule(_pool_stack, _fit_stack, _stack_shapes),
    }
)

SIMPLEST_FIRST = (*ONE_PASS, *RULES, "concat")
"""The order of preference of ``auto`` among rules that validation cannot distinguish."""


def check_rule(name: str, *, known: Collection[str] = (*RULES, *WEIGHT_RULES, AUTO)) -> None:
    """Raises ConfigError, with the nearest name, if there is no rule of that name."""
    if name not in known:
        near = nearest(name, known)
        hint = "" if near is None else f"did you mean {near!r}? "
        raise ConfigError(f"unknown ensemble rule {name!r}: {hint}rules are {', '.join(known)}")


def combine(name: str, member_probabilities: ArrayLike, **parameters: Any) -> FloatArray:
    """The ensemble's probabilities (n, k) by the rule ``name``, from a stack (m, n, k).

    Raises:
        ConfigError: there is no rule of that name.
        ValueError: the stack has a wrong shape, or holds a value that is not finite.
    """
    check_rule(name, known=RULES)
    return RULES[name].pool(_validated(member_probabilities), **parameters)


def _sum(terms: FloatArray) -> FloatArray:
    """Sum over members (axis 0), smallest term first: the order of the members does not change even the rounding."""
    result: FloatArray = np.sort(terms, axis=0).sum(axis=0)
    return result


def _validated(member_probabilities: ArrayLike) -> FloatArray:
    stack = np.asarray(member_probabilities, dtype=np.float64)
    if stack.ndim != 3 or stack.shape[0] == 0:
        raise ValueError(f"member probabilities must have shape (members, images, classes), got {stack.shape}")
    if not np.isfinite(stack).all():
        raise ValueError("member probabilities must be finite")
    return stack

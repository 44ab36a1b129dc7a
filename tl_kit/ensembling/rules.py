"""Rules that turn the members' probabilities into the ensemble's.

A rule takes a stack of shape (m members, n images, k classes), whose columns already mean the same class in every
member, and returns (n, k). A new rule is a function here and a line in :data:`RULES`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tl_kit.errors import ConfigError

__all__ = ["RULES", "combine", "mean"]

FloatArray = NDArray[np.float64]
Rule = Callable[[FloatArray], FloatArray]


def mean(member_probabilities: ArrayLike) -> FloatArray:
    """Arithmetic mean of the members' probabilities (the linear opinion pool of Stone 1961).

    Raises:
        ValueError: the stack is not (m, n, k) with at least one member, or holds a value that is not finite.
    """
    result: FloatArray = _validated(member_probabilities).mean(axis=0)
    return result


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "mean": mean,
    }
)


def combine(name: str, member_probabilities: ArrayLike) -> FloatArray:
    """The ensemble's probabilities (n, k) by the rule ``name``, from a stack (m, n, k).

    Raises:
        ConfigError: there is no rule of that name.
        ValueError: the stack has a wrong shape, or holds a value that is not finite.
    """
    if name not in RULES:
        nearest = difflib.get_close_matches(name, RULES, n=1)
        hint = f"did you mean {nearest[0]!r}? " if nearest else ""
        raise ConfigError(f"unknown ensemble rule {name!r}: {hint}rules are {', '.join(RULES)}")
    return RULES[name](_validated(member_probabilities))


def _validated(member_probabilities: ArrayLike) -> FloatArray:
    stack = np.asarray(member_probabilities, dtype=np.float64)
    if stack.ndim != 3 or stack.shape[0] == 0:
        raise ValueError(f"member probabilities must have shape (members, images, classes), got {stack.shape}")
    if not np.isfinite(stack).all():
        raise ValueError("member probabilities must be finite")
    return stack

"""A fitted rule: a rule with its parameters and temperature, as an ensemble's folder stores it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tl_kit.combining.calibration import TEMPERATURES, tempered
from tl_kit.combining.ensemble_rules import RULES, check_rule, combine
from tl_kit.config import RuleFitConfig
from tl_kit.untrusted import plain_number

__all__ = ["FittedRule", "fit_rule"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class FittedRule:
    """Pools a stack (m, n, k) by ``rule`` with its ``parameters`` (plain JSON), then scales by ``temperature``."""

    rule: str = "mean"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    temperature: float = 1.0

    def pool(self, stack: FloatArray) -> FloatArray:
        """The rule's probabilities (n, k), before the temperature."""
        return combine(self.rule, stack, **self.parameters)

    def __call__(self, stack: FloatArray) -> FloatArray:
        """The ensemble's probabilities (n, k)."""
        return tempered(self.pool(stack), self.temperature)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {"rule": self.rule, "parameters": dict(self.parameters), "temperature": self.temperature}

    @staticmethod
    def from_dict(content: Mapping[str, Any], *, members: int, classes: int) -> FittedRule:
        """Read a rule from ``to_dict`` for given numbers of members and classes; missing entries get their defaults.

        Raises:
            ValueError: there is no such rule, or its parameters do not fit the numbers of members and classes.
        """
        name, parameters = content.get("rule"), content.get("parameters", {})
        temperature = content.get("temperature", 1.0)
        if not isinstance(name, str) or name not in RULES:
            raise ValueError(f"unknown rule {name!r}")
        lo, hi = TEMPERATURES
        if not plain_number(temperature, lo, hi):
            raise ValueError(f"temperature must be a number from {lo} to {hi}, got {temperature!r}")
        shapes = RULES[name].shapes(members, classes)
        if not isinstance(parameters, dict) or parameters.keys() != set(shapes):
            raise ValueError(f"rule {name} wants the parameters {', '.join(shapes) or 'none'}")
        for key, shape in shapes.items():
            if _shape(parameters[key]) != shape:
                raise ValueError(f"{key} must be finite numbers of shape {shape}")
        if "weights" in parameters and (min(parameters["weights"]) < 0 or abs(sum(parameters["weights"]) - 1) > 1e-6):
            raise ValueError("weights must not be negative, and sum to 1")
        return FittedRule(name, parameters, float(temperature))


def fit_rule(
    name: str, stack: FloatArray, labels: NDArray[np.int64], *, config: RuleFitConfig, seed: int
) -> FittedRule:
    """The rule with parameters fitted to a stack (m, n, k) and labels (n,); a temperature of 1.

    Raises:
        ConfigError: there is no such rule, or there are too few images for it.
    """
    check_rule(name, known=RULES)
    fit = RULES[name].fit
    return FittedRule(name, {} if fit is None else fit(stack, labels, config, seed))


def _shape(value: object) -> tuple[int, ...] | None:
    """The shape of nested lists of finite numbers; None for anything else."""
    try:
        array = np.asarray(value)
    except ValueError:
        return None
    return array.shape if array.dtype.kind in "if" and bool(np.isfinite(array).all()) else None

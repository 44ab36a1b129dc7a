"""Rules and temperature inside the graph are those of the ensemble, to the rounding of float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tl_kit.combining.ensemble_rules import RULES
from tl_kit.combining.fitted_rule import FittedRule
from tl_kit.exporting.classifier import POOLS, _Rule

MEMBERS, IMAGES, CLASSES = 3, 40, 4


def parameters(rule: str, rng: np.random.Generator) -> dict[str, Any]:
    shapes = RULES[rule].shapes(MEMBERS, CLASSES)
    found: dict[str, Any] = {name: rng.normal(size=shape).tolist() for name, shape in shapes.items()}
    if "weights" in found:
        found["weights"] = [0.5, 0.0, 0.5]
    return found


def test_every_rule_that_an_ensemble_may_have_can_be_exported() -> None:
    assert POOLS.keys() == RULES.keys()


@pytest.mark.parametrize("temperature", [1.0, 0.4, 3.0])
@pytest.mark.parametrize("rule", RULES)
def test_a_rule_in_the_graph_is_the_rule(rule: str, temperature: float) -> None:
    rng = np.random.default_rng(0)
    stack = rng.dirichlet(np.full(CLASSES, 0.2), (MEMBERS, IMAGES))
    stack[0, 0] = [1, 0, 0, 0]  # whose logarithms are clipped
    stack[:, 1] = 0.25  # and ties
    stack[:, 2] = [[0.4, 0.4, 0.2, 0], [0.1, 0.5, 0.4, 0], [0.6, 0, 0.4, 0]]
    fitted = FittedRule(rule, parameters(rule, rng), temperature)
    found = _Rule(fitted)(torch.from_numpy(stack)).numpy()
    np.testing.assert_allclose(found, fitted(stack), rtol=0, atol=1e-12)

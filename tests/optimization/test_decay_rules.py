"""Rules of the weight decay, by table and by what they leave of weights without a gradient."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from tests.optimization.rule_cases import case, travel
from tl_kit.optimization.cases import AS_GIVEN, Case, Reasoned
from tl_kit.optimization.optimizers import create_optimizer, default_weight_decay
from tl_kit.optimization.rate_rules import rate
from tl_kit.optimization.rules import bare_decay, carried, decay


@pytest.mark.parametrize(
    ("known", "name", "kept", "expected", "reason"),
    [
        (case(), "momentum", "train", 0.05, "the usual one of momentum"),
        (case(), "momentum", "frozen", 0.005, "at most 0.005 of weights that no norm follows"),
        (case(), "adamw", "frozen", 0.05, "the usual one of adamw"),
        (case(), "adam", "train", 2e-5, "the usual one of adam"),
        (case(pretrained=False), "momentum", "train", 0.005, "at most 0.005 from random weights"),
        (case("head", decayed=0, pretrained=False), "momentum", "train", 0.05, "the usual one of momentum"),
        (case("head", decayed=0), "momentum", "frozen", 0.05, "the usual one of momentum"),
        (case(bare=6), "momentum", "train", 0.005, "at most 0.005 of weights that no norm follows"),
        (case(bare=6, pretrained=False), "momentum", "train", 0.005, "at most 0.005 from random weights"),
        (case(bare=6), "adamw", "train", 0.05, "the usual one of adamw"),
    ],
)
def test_decay_by_table(known: Case, name: str, kept: str, expected: float, reason: str) -> None:
    assert decay(known, name, statistics=kept, travel=1.0) == Reasoned(expected, reason)
    assert decay(known, name, 0.3, statistics=kept, travel=1.0) == Reasoned(0.3, AS_GIVEN)


def test_a_long_way_limits_the_decay_of_bare_weights() -> None:
    found = decay(case(bare=6), "momentum", statistics="train", travel=1000.0)
    assert found == Reasoned(0.25 / 1000, "so that the run leaves 78% or more of weights that no norm follows")


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("momentum", {}, 10),
        ("nesterov", {"momentum": 0.5}, 2),
        ("sgd", {"momentum": 0.9}, 1),
        ("adamw", {}, 1),
        ("momentum", {"momentum": 1.5}, 1),
    ],
)
def test_momentum_carries_the_decay(name: str, options: dict[str, object], expected: float) -> None:
    assert carried(name, options) == pytest.approx(expected)


@pytest.mark.parametrize("pretrained", [True, False])
@pytest.mark.parametrize("policy", ["any", "last"])
@pytest.mark.parametrize("steps", [20, 384, 100_000])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("momentum", {}),
        ("momentum", {"momentum": 0.99}),
        ("sgd", {}),
        ("nesterov", {}),
        ("sgdw", {}),
        ("adamw", {}),
        ("lion", {}),
        ("muon", {}),
    ],
)
def test_no_default_decay_takes_much_of_bare_weights(
    name: str, options: dict[str, object], steps: int, policy: str, pretrained: bool
) -> None:
    """Under a constant rate, which is the most that a schedule can be: what is left of weights without a gradient."""
    known = case(policy, bare=10, pretrained=pretrained)
    lr = rate(known, name, None, statistics="train", clips=True).value
    found = decay(known, name, statistics="train", travel=travel(name, lr, steps, options)).value
    assert found > 0
    assert math.exp(-0.26) < left_over(name, lr, found, steps=min(steps, 400), all_steps=steps, options=options) <= 1


def left_over(
    name: str, lr: float, weight_decay: float, *, steps: int, all_steps: int, options: dict[str, object]
) -> float:
    """Of a weight of 1 after so many steps without a gradient; fewer, at a higher decay, stand for all."""
    weight = nn.Parameter(torch.ones(1, 1))
    descent = create_optimizer(name, [weight], lr=lr, weight_decay=weight_decay * all_steps / steps, options=options)
    for _ in range(steps):
        weight.grad = torch.zeros_like(weight)
        descent.step()
    return float(weight.detach())


def test_mixed_networks_decay_their_bare_weights_gently() -> None:
    known, way = case(bare=4), travel("momentum", 0.03)
    usual = decay(known, "momentum", statistics="train", travel=way)
    assert usual.value == default_weight_decay("momentum") == 0.05
    found = bare_decay(known, "momentum", usual=usual, travel=way)
    assert found.value == pytest.approx(0.25 / (0.03 * 10 * 384))

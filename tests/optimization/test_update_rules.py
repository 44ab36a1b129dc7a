"""The registry's optimizers against the lecture's equations, 100 steps in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch

from tests import references as ref
from tl_kit.optimization.optimizers import create_optimizer
from tl_kit.optimization.schedules import set_lr

STEPS = 100
BETAS = (0.9, 0.999)
problems = pytest.mark.parametrize("problem", ref.PROBLEMS)


def registry_path(
    name: str,
    problem: str,
    *,
    lr: float,
    weight_decay: float = 0.0,
    options: Mapping[str, object] | None = None,
    multiplier: Callable[[int], float] | None = None,
) -> np.ndarray:
    """The points that the registry's optimizer visits; each step's gradient comes from the problem itself."""
    start, gradient = ref.PROBLEMS[problem]()
    x = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    optimizer = create_optimizer(name, [x], lr=lr, weight_decay=weight_decay, options=options)
    points = []
    for t in range(STEPS):
        if multiplier is not None:
            set_lr(optimizer, multiplier(t))
        x.grad = torch.from_numpy(gradient(x.detach().numpy(), t))
        optimizer.step()
        points.append(x.detach().numpy().copy())
    return np.stack(points)


def reference_path(rule: Callable[..., Iterator[Any]], problem: str, **arguments: Any) -> np.ndarray:
    start, gradient = ref.PROBLEMS[problem]()
    return np.stack(list(islice(rule(start, gradient, **arguments), STEPS)))


def assert_same(ours: np.ndarray, reference: np.ndarray) -> None:
    assert np.isfinite(reference).all()
    assert np.abs(reference[-1] - reference[0]).max() > 1e-3, "the problem must move the point"
    np.testing.assert_allclose(ours, reference, rtol=1e-10, atol=1e-10)


RULES: dict[str, tuple[Callable[..., Iterator[Any]], float, dict[str, Any]]] = {
    "sgd": (ref.sgd, 0.1, {}),
    "momentum": (ref.momentum, 0.05, {"rho": 0.9}),
    "nesterov": (ref.nesterov_changed, 0.05, {"rho": 0.9}),
    "adagrad": (ref.adagrad, 0.1, {"eps": 1e-10}),
    "rmsprop": (ref.rmsprop, 0.01, {"alpha": 0.9, "eps": 1e-8}),
    "adam": (ref.adam, 0.05, {"betas": BETAS, "eps": 1e-8}),
    "adam-uncorrected": (ref.adam, 0.05, {"betas": BETAS, "eps": 1e-8, "corrected": False}),
    "adamw": (ref.adam, 0.05, {"betas": BETAS, "eps": 1e-8}),
}


@problems
@pytest.mark.parametrize("name", RULES)
def test_default_options_give_the_lectures_path(name: str, problem: str) -> None:
    rule, lr, arguments = RULES[name]
    assert_same(registry_path(name, problem, lr=lr), reference_path(rule, problem, lr=lr, **arguments))


OTHER_OPTIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "momentum": ({"momentum": 0.5}, {"rho": 0.5}),
    "nesterov": ({"momentum": 0.8}, {"rho": 0.8}),
    "adagrad": ({"eps": 1e-2}, {"eps": 1e-2}),
    "rmsprop": ({"alpha": 0.99, "eps": 1e-2}, {"alpha": 0.99, "eps": 1e-2}),
    "adam": ({"betas": (0.8, 0.99), "eps": 1e-2}, {"betas": (0.8, 0.99), "eps": 1e-2}),
    "adam-uncorrected": ({"betas": (0.8, 0.99), "eps": 1e-2}, {"betas": (0.8, 0.99), "eps": 1e-2}),
    "adamw": ({"betas": (0.8, 0.99), "eps": 1e-2}, {"betas": (0.8, 0.99), "eps": 1e-2}),
}


@problems
@pytest.mark.parametrize("name", OTHER_OPTIONS)
def test_other_options_reach_the_equation(name: str, problem: str) -> None:
    """A large epsilon shows on which side of the root, and of the correction, it stands."""
    rule, lr, arguments = RULES[name]
    given, changed = OTHER_OPTIONS[name]
    reference = reference_path(rule, problem, lr=lr, **(arguments | changed))
    assert_same(registry_path(name, problem, lr=lr, options=given), reference)
    assert not np.allclose(reference, reference_path(rule, problem, lr=lr, **arguments), rtol=1e-4)


@problems
def test_nesterovs_look_ahead_form_is_the_same_path(problem: str) -> None:
    pairs = reference_path(ref.nesterov_lookahead, problem, lr=0.05, rho=0.9)
    points, ahead = pairs[:, 0], pairs[:, 1]
    assert_same(reference_path(ref.nesterov_changed, problem, lr=0.05, rho=0.9), ahead)
    ours = registry_path("nesterov", problem, lr=0.05)
    assert_same(ours, ahead)
    # Back from x̃ to x: v is the last difference of x, so x = x̃ − ρv.
    start, _ = ref.PROBLEMS[problem]()
    velocity = np.diff(np.vstack([start, points]), axis=0)
    assert_same(ours - 0.9 * velocity, points)


@problems
@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_weight_decay_is_coupled_except_in_adamw(name: str, problem: str) -> None:
    rule, lr, arguments = RULES[name]
    key = {"sgd": "weight_decay", "adam": "coupled", "adamw": "decoupled"}[name]
    ours = registry_path(name, problem, lr=lr, weight_decay=0.1)
    assert_same(ours, reference_path(rule, problem, lr=lr, **{key: 0.1}, **arguments))


@problems
def test_uncorrected_adam_couples_its_weight_decay(problem: str) -> None:
    rule, lr, arguments = RULES["adam-uncorrected"]
    ours = registry_path("adam-uncorrected", problem, lr=lr, weight_decay=0.1)
    assert_same(ours, reference_path(rule, problem, lr=lr, coupled=0.1, **arguments))


@problems
@pytest.mark.parametrize("name", ["sgd", "momentum", "adagrad", "rmsprop", "adam", "adam-uncorrected", "adamw"])
def test_a_changing_rate_follows_the_equation(name: str, problem: str) -> None:
    rule, lr, arguments = RULES[name]

    def halved(t: int) -> float:
        return 0.5 ** (t // 20)

    ours = registry_path(name, problem, lr=lr, multiplier=halved)
    assert_same(ours, reference_path(rule, problem, lr=lambda t: lr * halved(t), **arguments))


@problems
def test_momentum_keeps_gradients_and_not_steps(problem: str) -> None:
    """The two conventions agree at a constant rate and part when it changes; ours has the rate outside."""
    constant = {"lr": 0.05, "rho": 0.9}
    assert_same(
        reference_path(ref.momentum_rate_inside, problem, **constant), reference_path(ref.momentum, problem, **constant)
    )
    changing = {"lr": lambda t: 0.05 * (1.0 if t < 20 else 0.1), "rho": 0.9}
    inside = reference_path(ref.momentum_rate_inside, problem, **changing)
    ours = registry_path("momentum", problem, lr=0.05, multiplier=lambda t: 1.0 if t < 20 else 0.1)
    np.testing.assert_allclose(ours[:20], inside[:20], rtol=1e-10, atol=1e-10)
    assert np.abs(ours[20] - inside[20]).max() > 1e-6


@problems
def test_tensorflows_rmsprop_has_another_convention(problem: str) -> None:
    reference = reference_path(ref.rmsprop_tensorflow, problem, lr=0.01, alpha=0.9, eps=1e-3)
    ours = registry_path("rmsproptf", problem, lr=0.01, options={"eps": 1e-3, "momentum": 0.0})
    assert_same(ours, reference)
    assert not np.allclose(registry_path("rmsprop", problem, lr=0.01, options={"eps": 1e-3}), reference, rtol=1e-3)


def test_without_correction_the_first_step_is_too_long() -> None:
    start, _ = ref.PROBLEMS["quadratic"]()
    corrected = registry_path("adam", "quadratic", lr=0.05)[0] - start
    uncorrected = registry_path("adam-uncorrected", "quadratic", lr=0.05)[0] - start
    np.testing.assert_allclose(np.abs(corrected), 0.05, rtol=1e-6)
    np.testing.assert_allclose(uncorrected / corrected, (1 - 0.9) / np.sqrt(1 - 0.999), rtol=1e-5)

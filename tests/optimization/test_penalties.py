"""Penalties: values and gradients by hand, and the coupled form's equality with torch's weight decay."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from tl_kit.errors import ConfigError
from tl_kit.optimization.optimizers import create_optimizer
from tl_kit.optimization.penalties import l1_penalty, l2_penalty, l2_sp_penalty


def small_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 4)).double()


def decayed(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if name in ("0.weight", "3.weight")}


def test_values_and_gradients_are_those_of_the_equations() -> None:
    model = small_model()
    for penalty, value, gradient in (
        (l1_penalty, lambda w: w.abs().sum(), torch.sign),
        (l2_penalty, lambda w: (w**2).sum() / 2, lambda w: w),
    ):
        model.zero_grad()
        result = penalty(model.named_parameters(), strength=0.3)
        assert result.shape == ()
        expected = 0.3 * sum(value(w.detach()) for w in decayed(model).values())
        torch.testing.assert_close(result.detach(), expected)
        result.backward()
        for name, parameter in model.named_parameters():
            if name in decayed(model):
                torch.testing.assert_close(parameter.grad, 0.3 * gradient(parameter.detach()))
            else:
                assert parameter.grad is None, f"{name} is exempt"


def test_the_coupled_penalty_is_torchs_weight_decay() -> None:
    one, other = small_model(), small_model()
    images = torch.randn(4, 2, 4, 4, dtype=torch.float64)
    with_penalty = create_optimizer("momentum", one.parameters(), lr=0.1)
    weights = list(decayed(other).values())
    rest = [p for p in other.parameters() if all(p is not w for w in weights)]
    groups = [{"params": weights, "weight_decay": 0.2}, {"params": rest, "weight_decay": 0.0}]
    with_decay = create_optimizer("momentum", groups, lr=0.1)
    for _ in range(5):
        for model, optimizer in ((one, with_penalty), (other, with_decay)):
            optimizer.zero_grad()
            loss = model(images).square().mean()
            if model is one:
                loss = loss + l2_penalty(model.named_parameters(), strength=0.2)
            loss.backward()
            optimizer.step()
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_l2_sp_pulls_to_the_start_and_the_new_head_to_zero() -> None:
    model = small_model()
    start = {name: torch.randn_like(p) for name, p in model.named_parameters() if name.startswith(("0.", "1."))}
    result = l2_sp_penalty(model.named_parameters(), start, alpha=0.4, beta=0.1)
    conv, head = model[0].weight.detach(), model[3].weight.detach()
    expected = 0.2 * ((conv - start["0.weight"]) ** 2).sum() + 0.05 * (head**2).sum()
    torch.testing.assert_close(result.detach(), expected)
    result.backward()
    torch.testing.assert_close(model[0].weight.grad, 0.4 * (conv - start["0.weight"]))
    torch.testing.assert_close(model[3].weight.grad, 0.1 * head)
    assert model[0].bias.grad is None
    assert model[1].weight.grad is None


def test_l2_sp_is_zero_at_the_start_and_its_gradient_flow_returns_there() -> None:
    model = small_model()
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    assert float(l2_sp_penalty(model.named_parameters(), start, alpha=1.0, beta=1.0).detach()) == 0.0
    with torch.no_grad():
        for parameter in decayed(model).values():
            parameter.add_(torch.randn_like(parameter))
    optimizer = create_optimizer("sgd", decayed(model).values(), lr=0.5)
    for _ in range(60):
        optimizer.zero_grad()
        l2_sp_penalty(model.named_parameters(), start, alpha=1.0, beta=0.0).backward()
        optimizer.step()
    for name, parameter in decayed(model).items():
        torch.testing.assert_close(parameter.detach(), start[name], rtol=1e-10, atol=1e-10)


def test_l2_sp_refuses_a_start_of_another_shape() -> None:
    model = small_model()
    with pytest.raises(ConfigError, match=r"'3\.weight' has shape \(4, 12\), but \(5, 12\)"):
        l2_sp_penalty(model.named_parameters(), {"3.weight": torch.zeros(5, 12)}, alpha=1.0, beta=1.0)


def test_frozen_and_exempt_weights_are_left_out() -> None:
    model = small_model()
    head_only = l1_penalty(model.named_parameters(), strength=1.0, exempt=("0.*",))
    torch.testing.assert_close(head_only, model[3].weight.abs().sum())
    frozen = copy.deepcopy(model)
    frozen[0].requires_grad_(False)
    torch.testing.assert_close(l1_penalty(frozen.named_parameters(), strength=1.0), frozen[3].weight.abs().sum())
    frozen.requires_grad_(False)
    assert float(l2_penalty(frozen.named_parameters(), strength=1.0)) == 0.0

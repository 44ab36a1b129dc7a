"""DropConnect: expectation, gradients, and a model whose names and evaluation do not change."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from tl_kit.errors import ConfigError
from tl_kit.optimization.dropconnect import apply_dropconnect, dropconnect


def small_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_the_expectation_in_training_is_the_weight_of_test_time(p: float) -> None:
    generator = torch.Generator().manual_seed(3)
    weight = torch.linspace(-2, 2, 12, dtype=torch.float64).reshape(3, 4)
    draws = torch.stack([dropconnect(weight, p, generator=generator) for _ in range(20_000)])
    # Each draw is w/(1 − p) or 0, so its variance is w²·p/(1 − p); five standard errors.
    bound = 5 * weight.abs() * (p / (1 - p) / len(draws)) ** 0.5
    assert ((draws.mean(0) - weight).abs() <= bound).all()
    torch.testing.assert_close(draws.var(0), weight**2 * p / (1 - p), rtol=0.1, atol=1e-9)
    assert torch.equal(dropconnect(weight, p, training=False), weight)


def test_the_share_dropped_is_p_and_the_kept_are_scaled() -> None:
    torch.manual_seed(0)
    dropped = dropconnect(torch.ones(200, 200), 0.3)
    assert sorted(dropped.unique().tolist()) == pytest.approx([0.0, 1 / 0.7])
    assert float((dropped == 0).float().mean()) == pytest.approx(0.3, abs=0.015)


def test_gradients_reach_only_the_weights_that_were_kept() -> None:
    torch.manual_seed(0)
    weight = torch.randn(20, 20, requires_grad=True)
    dropped = dropconnect(weight, 0.4)
    dropped.sum().backward()
    assert weight.grad is not None
    expected = torch.where(dropped.detach() == 0, 0.0, 1 / 0.6)
    torch.testing.assert_close(weight.grad, expected)


@pytest.mark.parametrize("p", [-0.1, 1.0, 1.5, float("nan")])
def test_a_probability_out_of_range_is_an_error(p: float) -> None:
    with pytest.raises(ConfigError, match="at least 0 and below 1"):
        dropconnect(torch.ones(2), p)
    with pytest.raises(ConfigError, match="at least 0 and below 1"):
        apply_dropconnect(small_model(), ["4"], p=p)


def test_the_output_of_a_layer_keeps_its_expectation() -> None:
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(6, 3)).double()
    inputs = torch.randn(2, 6, dtype=torch.float64)
    with torch.no_grad():
        whole = layer(inputs)
        apply_dropconnect(layer, ["0"], p=0.5)
        draws = torch.stack([layer(inputs) for _ in range(20_000)])
    error = draws.std(0) / len(draws) ** 0.5
    assert (error > 0).all()
    assert ((draws.mean(0) - whole).abs() <= 5 * error).all()


def test_evaluation_names_and_the_state_dict_do_not_change() -> None:
    model = small_model().eval()
    images = torch.randn(2, 3, 8, 8)
    before = model(images)
    names = [name for name, _ in model.named_parameters()]
    apply_dropconnect(model, ["0", "4"], p=0.5)
    assert torch.equal(model(images), before)
    model.train()
    model(images)
    assert [name for name, _ in model.named_parameters()] == names
    assert isinstance(model[0].weight, nn.Parameter)
    small_model().load_state_dict(model.state_dict(), strict=True)


@pytest.mark.parametrize("name", ["0", "4"])
def test_training_drops_anew_at_each_pass_and_remove_ends_it(name: str) -> None:
    model = small_model().train()
    images = torch.randn(2, 3, 8, 8)
    whole = model(images)
    handle = apply_dropconnect(model, [name], p=0.5)
    first, second = model(images), model(images)
    assert not torch.equal(first, whole)
    assert not torch.equal(first, second)
    torch.manual_seed(7)
    seeded = model(images)
    torch.manual_seed(7)
    assert torch.equal(model(images), seeded)
    handle.remove()
    assert torch.equal(model(images), whole)


def test_gradients_arrive_at_the_models_own_parameters() -> None:
    model = small_model().train()
    apply_dropconnect(model, ["0", "4"], p=0.5)
    model(torch.randn(2, 3, 8, 8)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
    share = float((model[4].weight.grad == 0).float().mean())
    assert 0.4 < share < 0.75


def test_a_copy_drops_its_own_weights() -> None:
    model = small_model().train()
    apply_dropconnect(model, ["4"], p=0.5)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin[4].weight.zero_()
        twin[4].bias.zero_()
    images = torch.randn(2, 3, 8, 8)
    assert float(twin(images).abs().sum().detach()) == 0.0
    assert float(model(images).abs().sum().detach()) > 0.0


def test_a_pass_that_fails_leaves_the_whole_weight_behind() -> None:
    model = small_model().train()
    apply_dropconnect(model, ["4"], p=0.5)
    with pytest.raises(RuntimeError):
        model[4](torch.randn(2, 7))
    assert isinstance(model[4].weight, nn.Parameter)


def test_unknown_and_unsuitable_modules_are_refused_before_anything_is_attached() -> None:
    model = small_model().train()
    images = torch.randn(2, 3, 8, 8)
    whole = model(images)
    with pytest.raises(ConfigError, match="unknown module '9'"):
        apply_dropconnect(model, ["4", "9"], p=0.5)
    with pytest.raises(ConfigError, match="'1' is a BatchNorm2d"):
        apply_dropconnect(model, ["4", "1"], p=0.5)
    assert torch.equal(model(images), whole)

"""The registry: names, options, defaults, and a step of every optimizer it lists."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import timm.optim
import torch
from torch import nn

from tl_kit.errors import ConfigError, TrainingError
from tl_kit.optimization.optimizers import (
    HEAD_ONLY,
    add_groups,
    create_optimizer,
    default_lr,
    default_weight_decay,
    forget,
    needs_second_order,
    optimizer_names,
)
from tl_kit.optimization.registry import known_names, optimizer_spec

LECTURE = ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adam-uncorrected", "adamw")


def tiny_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5)
    )


def train(model: nn.Module, optimizer: torch.optim.Optimizer, *, steps: int, second_order: bool = False) -> list[float]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(8, 3, 8, 8, generator=generator)
    labels = torch.arange(8) % 5
    losses = []
    for _ in range(steps):
        loss = nn.functional.cross_entropy(model(images), labels)
        parameters = list(model.parameters())
        gradients = torch.autograd.grad(loss, parameters, create_graph=second_order)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("name", optimizer_names())
def test_every_listed_optimizer_takes_finite_steps_that_lower_the_loss(name: str) -> None:
    model = tiny_model()
    before = copy.deepcopy(model.state_dict())
    optimizer = create_optimizer(name, model.parameters(), lr=default_lr(name, pretrained=True), weight_decay=1e-4)
    losses = train(model, optimizer, steps=4, second_order=needs_second_order(name))
    for key, parameter in model.named_parameters():
        assert torch.isfinite(parameter).all(), key
        assert not torch.equal(parameter, before[key]), f"{key} did not move"
    assert losses[-1] < losses[0]


def test_every_name_of_timms_factory_is_listed_or_has_a_reason() -> None:
    names = optimizer_names()
    assert set(LECTURE) <= set(names)
    for name in timm.optim.list_optimizers():
        if name in names:
            continue
        assert optimizer_spec(name).missing, name
        with pytest.raises(ConfigError, match=r"needs (the package|a CUDA device)"):
            create_optimizer(name, [torch.zeros(1, requires_grad=True)], lr=0.1)
    assert set(known_names()) == {*timm.optim.list_optimizers(), "adam-uncorrected"}
    assert list(names) == sorted(names)


def test_only_adahessian_differentiates_twice() -> None:
    assert [name for name in optimizer_names() if needs_second_order(name)] == ["adahessian"]


@pytest.mark.parametrize("name", sorted(HEAD_ONLY))
def test_head_only_names_are_refused_with_the_way_out(name: str) -> None:
    assert name not in optimizer_names()
    with pytest.raises(ConfigError, match="head on cached features"):
        create_optimizer(name, [torch.zeros(1, requires_grad=True)], lr=0.1)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("adm", "adam"), ("momentun", "momentum"), ("Lion", "lion"), ("adam_uncorrected", "adam-uncorrected")],
)
def test_unknown_names_answer_with_the_nearest(wrong: str, right: str) -> None:
    for call in (lambda: create_optimizer(wrong, [torch.zeros(1)], lr=0.1), lambda: default_lr(wrong, pretrained=True)):
        with pytest.raises(ConfigError, match=f"unknown optimizer '{wrong}', did you mean '{right}'"):
            call()


@pytest.mark.parametrize(
    ("name", "scratch"),
    [
        *(("sgd", 1.0), ("momentum", 0.1), ("nesterov", 0.1), ("adagrad", 1e-2), ("rmsprop", 1e-3)),
        *(("adam", 1e-3), ("adam-uncorrected", 1e-3), ("adamw", 1e-3), ("lion", 2e-4), ("muon", 1e-3)),
    ],
)
def test_fine_tuning_starts_at_a_tenth(name: str, scratch: float) -> None:
    assert default_lr(name, pretrained=False) == pytest.approx(scratch)
    assert default_lr(name, pretrained=True) == pytest.approx(scratch / 10)


def test_every_default_rate_is_a_positive_number() -> None:
    assert all(0 < default_lr(name, pretrained=False) <= 1 for name in optimizer_names())


@pytest.mark.parametrize("lr", [-0.1, float("nan"), float("inf")])
def test_a_rate_must_be_finite_and_not_negative(lr: float) -> None:
    with pytest.raises(ConfigError, match="lr"):
        create_optimizer("adam", [torch.zeros(1, requires_grad=True)], lr=lr)
    with pytest.raises(ConfigError, match="weight decay"):
        create_optimizer("adam", [torch.zeros(1, requires_grad=True)], lr=0.1, weight_decay=lr)


def test_nothing_to_train_is_a_training_error() -> None:
    for nothing in ([], [{"params": []}]):
        with pytest.raises(TrainingError, match="no trainable parameters"):
            create_optimizer("adam", nothing, lr=0.1)


def test_groups_keep_their_own_rate_and_decay_and_are_not_changed() -> None:
    tensors = [torch.zeros(2, requires_grad=True) for _ in range(3)]
    groups = [
        {"params": [tensors[0]], "lr": 0.5, "weight_decay": 0.0},
        {"params": [tensors[1]], "lr_scale": 0.1},
        {"params": [tensors[2]]},
    ]
    snapshot = copy.deepcopy(groups)
    optimizer = create_optimizer("adamw", groups, lr=0.2, weight_decay=0.3)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.5, 0.02, 0.2])
    assert [group["initial_lr"] for group in optimizer.param_groups] == pytest.approx([0.5, 0.02, 0.2])
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.0, 0.3, 0.3]
    assert [sorted(group) for group in groups] == [sorted(group) for group in snapshot]


def test_corrected_decay_refers_to_each_groups_own_maximum() -> None:
    """adamc decays by lr²/max lr a step: at a group's own peak that is lr, whatever the base rate is."""
    weights = [torch.ones(3, requires_grad=True) for _ in range(2)]
    groups = [{"params": [weight], "lr": lr} for weight, lr in zip(weights, (0.1, 0.01), strict=True)]
    optimizer = create_optimizer("adamc", groups, lr=0.1, weight_decay=0.5)
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    torch.testing.assert_close(weights[0].detach(), torch.full((3,), 1 - 0.1 * 0.5))
    torch.testing.assert_close(weights[1].detach(), torch.full((3,), 1 - 0.01 * 0.5))


def _two_groups(name: str, *, later: bool) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The second group has a tenth of the rate; ``later``: it is added to an optimizer that has been made."""
    model = tiny_model()
    parameters = list(model.parameters())
    groups = [
        {"params": parameters[3:], "lr": 1e-2, "weight_decay": 0.1},
        {"params": parameters[:3], "lr": 1e-3, "weight_decay": 0.1},
    ]
    optimizer = create_optimizer(name, groups[:1] if later else groups, lr=1e-2)
    add_groups(optimizer, groups[1:] if later else [])
    return model, optimizer


@pytest.mark.parametrize("name", optimizer_names())
def test_groups_that_are_added_later_are_as_those_from_the_start(name: str) -> None:
    found = []
    for later in (False, True):
        model, optimizer = _two_groups(name, later=later)
        torch.manual_seed(5)
        train(model, optimizer, steps=3, second_order=needs_second_order(name))
        found.append(([{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups], model))
    (settings, model), (other_settings, other) = found
    assert settings == other_settings
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("forgotten", [False, True])
def test_adagrad_has_its_sums_before_the_first_step(forgotten: bool) -> None:
    """Older torch (2.11) makes them in the constructor alone; the step of a group without them ended in a KeyError."""
    weights = [torch.ones(3, requires_grad=True) for _ in range(2)]
    optimizer = create_optimizer("adagrad", weights[:1], lr=0.1, options={"initial_accumulator_value": 0.5})
    add_groups(optimizer, [{"params": weights[1:], "lr": 0.01}])
    if forgotten:
        forget(optimizer)
    for weight in weights:
        state = optimizer.state[weight]
        assert (state["step"].item(), state["sum"].tolist()) == (0.0, [0.5] * 3)


@pytest.mark.parametrize("name", ["momentum", "adamw", "adagrad", "adahessian"])
def test_an_optimizer_that_forgets_takes_its_first_steps_again(name: str) -> None:
    model, optimizer = _two_groups(name, later=True)
    begun = copy.deepcopy(model.state_dict())
    losses = train(model, optimizer, steps=3, second_order=needs_second_order(name))
    model.load_state_dict(begun)
    forget(optimizer)
    if name == "adahessian":  # its random signs go on
        optimizer.generator.manual_seed(optimizer.seed)
    assert train(model, optimizer, steps=3, second_order=needs_second_order(name)) == losses


@pytest.mark.parametrize("name", ["adam-uncorrected", "adam", "nesterov", "lion", "muon", "kron"])
def test_state_saved_and_loaded_continues_the_same_path(name: str) -> None:
    def fresh() -> tuple[nn.Module, torch.optim.Optimizer]:
        model = tiny_model()
        return model, create_optimizer(name, model.parameters(), lr=1e-3)

    straight, optimizer = fresh()
    train(straight, optimizer, steps=3)
    resumed, resumed_optimizer = fresh()
    resumed.load_state_dict(copy.deepcopy(straight.state_dict()))
    resumed_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    torch.manual_seed(5)
    train(straight, optimizer, steps=2)
    torch.manual_seed(5)
    train(resumed, resumed_optimizer, steps=2)
    for (key, one), (_, other) in zip(straight.named_parameters(), resumed.named_parameters(), strict=True):
        assert torch.equal(one, other), key


def test_adam_uncorrected_evaluates_a_closure_with_gradients() -> None:
    x = torch.tensor([2.0], requires_grad=True)
    optimizer = create_optimizer("adam-uncorrected", [x], lr=0.1)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (x**2).sum()
        loss.backward()
        return loss

    step: Callable[..., torch.Tensor] = optimizer.step
    assert float(step(closure).detach()) == 4.0
    assert float(x.detach()) < 2.0


def test_fused_off_cuda_changes_nothing() -> None:
    optimizer = create_optimizer("adam", [torch.zeros(1, requires_grad=True)], lr=0.1, fused=True)
    assert not optimizer.defaults["fused"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="fused optimizers are for CUDA")
@pytest.mark.parametrize("name", LECTURE)
def test_fused_on_cuda_takes_the_same_steps(name: str) -> None:
    paths = []
    for fused in (False, True):
        model = tiny_model().double()
        weight = model[4].weight.detach().cuda().requires_grad_()
        optimizer = create_optimizer(name, [weight], lr=0.01, fused=fused)
        assert bool(optimizer.defaults.get("fused")) == (fused and optimizer_spec(name).fused)
        for _ in range(10):
            weight.grad = torch.sin(weight.detach())
            optimizer.step()
        paths.append(weight.detach().cpu())
    torch.testing.assert_close(paths[0], paths[1], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("name", "expected"), [("momentum", 0.05), ("adamw", 0.05), ("adam", 2e-5), ("rmsprop", 2e-5), ("radam", 2e-5)]
)
def test_a_coupled_penalty_is_weak_where_the_method_divides_by_its_size(name: str, expected: float) -> None:
    assert default_weight_decay(name) == expected


def test_the_decay_of_an_unknown_optimizer_is_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean 'adamw'"):
        default_weight_decay("adamww")

"""Every optimizer, stopped after some steps and made anew from its state, goes on as if nothing had been."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tl_kit.optimization.optimizers import create_optimizer, needs_second_order, optimizer_names
from tl_kit.storage.saved_states import read_state, write_state
from tl_kit.training.stateful import OptimizerState, RandomState, TensorState

STEPS = 7


def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    return model.to(memory_format=torch.channels_last)


def new_optimizer(name: str, model: nn.Module) -> torch.optim.Optimizer:
    first, *others = model.parameters()
    groups = [{"params": [first], "lr": 0.01}, {"params": others, "lr": 0.003, "weight_decay": 0.01}]
    return create_optimizer(name, groups, lr=0.01, weight_decay=0.02)


def train(name: str, model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        images = torch.randn(6, 3, 4, 4, generator=generator).contiguous(memory_format=torch.channels_last)
        labels = torch.randint(3, (6,), generator=generator)
        loss = functional.cross_entropy(functional.dropout(model(images), 0.2), labels)
        loss.backward(create_graph=needs_second_order(name))
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * (1 - step / 20)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def tensors(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


@pytest.mark.filterwarnings("ignore:Using backward:UserWarning")  # with create_graph: the second-order ones need it
@pytest.mark.parametrize("name", optimizer_names())
def test_an_optimizer_goes_on(name: str, tmp_path: Path) -> None:
    whole = network()
    optimizer = new_optimizer(name, whole)
    torch.manual_seed(5)
    train(name, whole, optimizer, range(STEPS))

    stopped = network()
    optimizer = new_optimizer(name, stopped)
    torch.manual_seed(5)
    train(name, stopped, optimizer, range(3))
    parts = {"model": TensorState(stopped, stopped.state_dict()), "optimizer": OptimizerState(optimizer)}
    parts |= {"random": RandomState(torch.device("cpu"))}
    write_state(tmp_path, "a", {key: part.state() for key, part in parts.items()})
    at_three = tensors(stopped)
    torch.rand(3)

    taken_up = network()
    optimizer = new_optimizer(name, taken_up)
    saved = read_state(tmp_path, "a")
    TensorState(taken_up, taken_up.state_dict()).load_state(saved["model"])
    OptimizerState(optimizer).load_state(saved["optimizer"])
    RandomState(torch.device("cpu")).load_state(saved["random"])
    train(name, taken_up, optimizer, range(3, STEPS))
    expected, found = tensors(whole), tensors(taken_up)
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert any(not torch.equal(found[key], at_three[key]) for key in expected)


def test_groups_added_since_are_left_as_they_are() -> None:
    model = network()
    weights = list(model.parameters())
    before = create_optimizer("adamw", [{"params": weights[:2]}], lr=0.1)
    train("adamw", model, before, range(2))
    state = copy.deepcopy(OptimizerState(before).state())
    after = create_optimizer("adamw", [{"params": weights[:2]}], lr=0.1)
    after.add_param_group({"params": weights[2:], "lr": 0.5, "initial_lr": 0.5})
    OptimizerState(after).load_state(state)
    assert after.param_groups[1]["lr"] == 0.5
    assert all(torch.equal(after.state[p]["exp_avg"], before.state[p]["exp_avg"]) for p in weights[:2])
    assert not any(p in after.state for p in weights[2:])


def test_another_optimizers_state_is_refused() -> None:
    state = OptimizerState(new_optimizer("adamw", network())).state()
    with pytest.raises(ValueError, match="other settings"):
        OptimizerState(new_optimizer("momentum", network())).load_state(state)
    with pytest.raises(ValueError, match="argument"):
        OptimizerState(create_optimizer("adamw", network().parameters(), lr=0.1)).load_state(state)


def test_tensors_of_another_shape_type_or_name_are_refused() -> None:
    model = nn.Linear(3, 2)
    part = TensorState(model, {"weight"})
    assert set(part.state()) == {"weight"}
    for wrong in ({}, {"weight": torch.ones(3, 2)}, {"weight": torch.ones(2, 3).half()}, {"bias": torch.ones(2)}, 7):
        before = model.weight.detach().clone()
        with pytest.raises(ValueError, match=r"others|of another"):
            part.load_state(wrong)
        assert torch.equal(model.weight, before)

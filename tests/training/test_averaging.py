"""Averaged weights against their equations, written out; the model is lent to them and given back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tl_kit.training.averaging import UniformAverage, WeightAverage


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.999])
def test_it_follows_its_recurrence(decay: float) -> None:
    net = model().double()
    average = WeightAverage(net, decay=decay)
    rng = np.random.default_rng(0)
    expected = net[0].weight.detach().numpy().copy()
    for step in range(1, 30):
        weights = rng.normal(size=(4, 3))
        with torch.no_grad():
            net[0].weight.copy_(torch.from_numpy(weights))
        average.on_step(step)
        share = min(decay, 1 - step ** (-2 / 3))
        expected = share * expected + (1 - share) * weights
    with average.in_place():
        np.testing.assert_allclose(net[0].weight.detach().numpy(), expected, rtol=1e-12)


def test_the_first_update_forgets_the_start() -> None:
    net = model()
    average = WeightAverage(net, decay=0.999)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(7.0)
    average.on_step(1)
    with average.in_place():
        assert all((parameter == 7.0).all() for parameter in net.parameters())


def test_buffers_are_averaged_and_counters_copied() -> None:
    net = model()
    average = WeightAverage(net, decay=0.5)
    for step in range(1, 4):
        net(torch.randn(8, 3))
        average.on_step(step)
    with average.in_place():
        assert net[1].num_batches_tracked == 3
        assert net[1].num_batches_tracked.dtype == torch.int64


def test_the_models_own_weights_come_back_bit_for_bit_also_after_an_error() -> None:
    net = model()
    average = WeightAverage(net, decay=0.9)
    with torch.no_grad():
        net[0].weight.add_(1.0)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}

    def fail_inside() -> None:
        with average.in_place():
            assert not torch.equal(net[0].weight, before["0.weight"])
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail_inside()
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_what_never_changes_stays_the_same_bit_for_bit() -> None:
    net = model()
    frozen = net[0].weight.detach().clone()
    average = WeightAverage(net, decay=0.9)
    for step in range(1, 20):
        average.on_step(step)
    with average.in_place():
        assert torch.equal(net[0].weight, frozen)


def moments(net: nn.Module, count: int) -> list[dict[str, torch.Tensor]]:
    """Takes ``net`` through so many random states; returns them."""
    found = []
    for seed in range(count):
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
        net(torch.randn(8, 3, generator=generator, dtype=net[0].weight.dtype))  # moves BatchNorm's statistics
        found.append({name: tensor.detach().clone() for name, tensor in net.state_dict().items()})
    return found


@pytest.mark.parametrize("count", [1, 2, 3, 10])
def test_the_uniform_average_is_the_mean_of_all_moments_each_counted_once(count: int) -> None:
    net = model().double()
    states = moments(net, count)
    average = UniformAverage(net)
    for state in states:
        net.load_state_dict(state)
        average.update()
    assert average.count == count
    with torch.no_grad():
        net[0].weight.fill_(99.0)
    average.load()
    for name in dict(net.named_parameters()):
        expected = torch.stack([state[name] for state in states]).mean(0)
        torch.testing.assert_close(net.state_dict()[name], expected, rtol=1e-12, atol=1e-12)


def test_of_scalars_0_3_6_the_uniform_average_is_3() -> None:
    net = nn.Linear(1, 1)
    average = UniformAverage(net)
    for value in (0.0, 3.0, 6.0):
        nn.init.constant_(net.weight, value)
        average.update()
    average.load()
    assert net.weight.item() == 3.0


def test_buffers_of_the_uniform_average_are_those_of_the_last_moment_with_their_type() -> None:
    net = model()
    average = UniformAverage(net)
    for state in (states := moments(net, 3)):
        net.load_state_dict(state)
        average.update()
    average.load()
    for name, buffer in net.named_buffers():
        assert torch.equal(buffer, states[-1][name])
    assert net[1].num_batches_tracked.dtype == torch.int64


def test_what_never_changes_stays_the_same_in_the_uniform_average_bit_for_bit() -> None:
    net = model()
    frozen = net[0].weight.detach().clone()
    average = UniformAverage(net)
    for _ in range(7):
        average.update()
    average.load()
    assert torch.equal(net[0].weight, frozen)


def test_the_uniform_average_goes_on_from_its_state() -> None:
    net, other = model(), model()
    whole, first, second = UniformAverage(net), UniformAverage(net), UniformAverage(other)
    for number, state in enumerate(moments(net, 5)):
        net.load_state_dict(state)
        whole.update()
        if number < 3:
            first.update()
        if number == 2:
            second.load_state(first.state())
        if number >= 3:
            other.load_state_dict(state)
            second.update()
    assert second.count == 5
    assert all(isinstance(value, torch.Tensor) for value in whole.state().values())
    whole.load()
    second.load()
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in net.state_dict().items())

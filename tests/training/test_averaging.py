"""The moving average against its recurrence, written out; the model is lent to it and given back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tl_kit.training.averaging import WeightAverage


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
        average.update(step)
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
    average.update(1)
    with average.in_place():
        assert all((parameter == 7.0).all() for parameter in net.parameters())


def test_buffers_are_averaged_and_counters_copied() -> None:
    net = model()
    average = WeightAverage(net, decay=0.5)
    for step in range(1, 4):
        net(torch.randn(8, 3))
        average.update(step)
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
        average.update(step)
    with average.in_place():
        assert torch.equal(net[0].weight, frozen)

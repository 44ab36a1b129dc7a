"""BatchNorm statistics from one pass, against their definition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tl_kit.training.statistics import reestimate_statistics

BATCHES = [torch.randn(size, 3, generator=torch.Generator().manual_seed(size)) for size in (5, 6, 8)]


def a_network() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.ReLU(), nn.BatchNorm1d(4))
    return net.train()


def test_they_are_the_means_over_batches_of_what_each_layer_sees_without_dropout() -> None:
    net = a_network()
    assert reestimate_statistics(net, BATCHES) == 2
    inputs: dict[int, list[Tensor]] = {1: [], 4: []}
    with torch.no_grad():
        for batch in BATCHES:
            first = net[0](batch)
            normal = (first - first.mean(0)) / (first.var(0, unbiased=False) + 1e-5).sqrt()
            inputs[1].append(first)
            inputs[4].append(normal.relu())
    for index, seen in inputs.items():
        norm = net[index]
        torch.testing.assert_close(norm.running_mean, torch.stack([x.mean(0) for x in seen]).mean(0))
        torch.testing.assert_close(norm.running_var, torch.stack([x.var(0) for x in seen]).mean(0))
        assert norm.num_batches_tracked == 3
        assert norm.num_batches_tracked.dtype == torch.int64


def test_what_they_were_before_has_no_influence_and_weights_do_not_change() -> None:
    net, other = a_network(), a_network()
    for batch in torch.randn(20, 8, 3):
        other(7 * batch)
    reestimate_statistics(net, BATCHES)
    reestimate_statistics(other, BATCHES)
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in net.state_dict().items())
    assert [norm.momentum for norm in (net[1], net[4])] == [0.1, 0.1]
    assert not any(module.training for module in net.modules())


def test_frozen_layers_keep_theirs_and_without_others_no_batch_is_asked_for() -> None:
    net = a_network()
    net[1].eval()
    reestimate_statistics(net, BATCHES)
    assert torch.equal(net[1].running_mean, torch.zeros(4))
    assert not torch.equal(net[4].running_mean, torch.zeros(4))
    net.eval()

    def none() -> object:
        pytest.fail("no layer needs it")
        yield

    assert reestimate_statistics(net, none()) == 0  # type: ignore[arg-type]

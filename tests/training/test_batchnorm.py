"""Statistics that are estimated anew, against an independent computation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from tl_kit.training.batchnorm import reestimate_statistics, statistics_layers


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(4, 5, 1), nn.BatchNorm2d(5)
    )


def mixed(images: np.ndarray, layer: nn.Conv2d) -> np.ndarray:
    """A 1x1 convolution, in float64."""
    weight, bias = (p.detach().double().numpy() for p in (layer.weight, layer.bias))
    return np.einsum("oc,nchw->nohw", weight[:, :, 0, 0], images) + bias[None, :, None, None]


def moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return values.mean(axis=(0, 2, 3)), values.var(axis=(0, 2, 3), ddof=1)


def expected(net: nn.Sequential, batches: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of both layers: moments of each batch, normalised by its own below, averaged over the batches."""
    found = []
    for images in batches:
        first = mixed(images, net[0])
        mean, variance = first.mean(axis=(0, 2, 3), keepdims=True), first.var(axis=(0, 2, 3), keepdims=True)
        scale, shift = (p.detach().double().numpy()[None, :, None, None] for p in (net[1].weight, net[1].bias))
        hidden = np.maximum(scale * (first - mean) / np.sqrt(variance + net[1].eps) + shift, 0)
        found.append([moments(first), moments(mixed(hidden, net[4]))])
    return [tuple(np.mean([batch[layer][m] for batch in found], axis=0) for m in (0, 1)) for layer in (0, 1)]


@pytest.mark.parametrize("count", [1, 3])
def test_they_are_the_mean_and_the_variance_of_the_images(count: int) -> None:
    net = network()
    with torch.no_grad():
        for layer in statistics_layers(net).values():
            layer.weight.uniform_(0.5, 2)
            layer.running_mean.fill_(9)
            layer.running_var.fill_(9)
    images = torch.randn(12, 3, 6, 5, generator=torch.Generator().manual_seed(1)) * 3 + 1
    reestimate_statistics(net, iter(images.chunk(count)))
    wanted = expected(net, [part.double().numpy() for part in images.chunk(count)])
    for layer, (mean, variance) in zip((net[1], net[5]), wanted, strict=True):
        np.testing.assert_allclose(layer.running_mean.numpy(), mean, atol=1e-5)
        np.testing.assert_allclose(layer.running_var.numpy(), variance, rtol=1e-5)
        assert layer.num_batches_tracked == count
    if count == 1:  # then, those of the training images themselves
        np.testing.assert_allclose(
            net[1].running_mean.numpy(), moments(mixed(images.double().numpy(), net[0]))[0], atol=1e-5
        )


def test_nothing_else_changes_and_dropout_is_off() -> None:
    net = network()
    net.append(BatchNormAct2d(5, drop_layer=nn.Dropout))
    net[6].drop = nn.Dropout(0.9)
    net.append(nn.BatchNorm2d(5))
    net[7].momentum = 0.3
    before = {name: p.clone() for name, p in net.named_parameters()}
    images = torch.randn(8, 3, 4, 4)
    net.train()
    reestimate_statistics(net, [images])
    assert [m.training for m in net.modules()] == [False] * len(list(net.modules()))
    assert [m.momentum for m in statistics_layers(net).values()] == [0.1, 0.1, 0.1, 0.3]
    assert all(torch.equal(p, before[name]) for name, p in net.named_parameters())
    first = {name: b.clone() for name, b in net.named_buffers()}
    reestimate_statistics(net, [images])
    assert all(torch.equal(b, first[name]) for name, b in net.named_buffers()), "dropout would draw anew"


def test_an_error_in_the_images_leaves_the_layers_as_they_were() -> None:
    net = network()

    def broken():
        yield torch.randn(4, 3, 4, 4)
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        reestimate_statistics(net, broken())
    assert not net.training
    assert net[1].momentum == 0.1
    assert not net[1].training


def test_layers_without_statistics_have_none() -> None:
    net = nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), nn.LayerNorm(3), nn.BatchNorm1d(3))
    assert list(statistics_layers(net)) == ["2"]


def test_of_some_layers_the_others_keep_theirs() -> None:
    net = network()
    net[1].running_mean.fill_(9)
    reestimate_statistics(net, [torch.randn(8, 3, 4, 4)], layers=[net[5]])
    assert (net[1].running_mean == 9).all()
    assert (net[1].num_batches_tracked, net[5].num_batches_tracked) == (0, 1)

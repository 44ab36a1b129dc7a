"""Which weights are scale-free, and by which norm, on timm's networks and on toys."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from tl_kit.optimization.network_traits import NetworkTraits, find_scale_free, network_traits, shrinking_weights
from tl_kit.zoo.heads import classifier_names, in_modules

pytestmark = pytest.mark.usefixtures("one_thread")


def classifier(model: nn.Module) -> set[str]:
    heads = classifier_names(model)
    return {name for name, _ in model.named_parameters() if in_modules(name, heads)}


def names(model: nn.Module) -> set[str]:
    return {name for name, _ in model.named_parameters()}


def bare(model: nn.Module, statistics: str, *, side: int = 64) -> tuple[list[str], int]:
    """The weights that nothing makes scale-free, and how many a decay applies to."""
    free = find_scale_free(model, (3, side, side))
    traits = network_traits(model, names(model), classifier(model), free)
    found = shrinking_weights(model, names(model), classifier(model), free.under(statistics))
    assert traits.bare(statistics) == len(found)
    return found, traits.decayed


@pytest.mark.parametrize("name", ["resnet10t", "test_efficientnet", "lcnet_050", "repvgg_a0"])
def test_batchnorm_makes_weights_scale_free_by_the_batch_alone(name: str) -> None:
    model = timm.create_model(name)
    found, decayed = bare(model, "train")
    assert all(".se." in weight or weight == "conv_head.weight" for weight in found)  # after pooling
    assert 4 * len(found) < decayed
    assert len(bare(model, "frozen")[0]) == decayed


@pytest.mark.parametrize(("name", "side"), [("test_vit", 160), ("test_convnext", 64), ("test_mambaout", 64)])
def test_layernorm_before_a_weight_makes_it_no_scale_free_one(name: str, side: int) -> None:
    found, decayed = bare(timm.create_model(name), "train", side=side)
    assert len(found) == decayed > 0


def test_groupnorm_after_a_weight_needs_no_batch() -> None:
    model = timm.create_model("test_efficientnet_gn")
    found, _ = bare(model, "frozen")
    assert found == bare(model, "train")[0]
    assert all(".se." in weight for weight in found)


def test_standardised_weights_are_scale_free() -> None:
    found, decayed = bare(timm.create_model("test_nfnet"), "frozen")
    assert 0 < len(found) < decayed
    assert all(".attn_last." in weight or weight.endswith(".gain") for weight in found)


def test_of_a_residual_sum_no_part_is_scale_free() -> None:
    """Pre-activation: the third convolution of a block is added before a norm sees it, the first two are not."""
    model = timm.create_model("resnetv2_50d", layers=(1, 1, 1, 1), channels=(16, 16, 32, 32), stem_chs=16)
    found, _ = bare(model, "train")
    assert {name.rsplit(".", 2)[1] for name in found} <= {"conv3", "conv"}
    assert any(name.endswith("conv3.weight") for name in found)


class Post(nn.Module):
    """A linear layer between an input and a norm; ``bias``: whether the layer has one."""

    def __init__(self, norm: nn.Module, *, bias: bool) -> None:
        super().__init__()
        self.inner = nn.Conv2d(3, 8, 1, bias=bias)
        self.norm = norm
        self.head = nn.Linear(8, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.head(self.norm(self.inner(images)).mean((2, 3)).sin())
        return result


@pytest.mark.parametrize(
    ("norm", "bias", "always", "by_batch"),
    [
        (nn.BatchNorm2d(8), False, False, True),
        (nn.BatchNorm2d(8), True, False, True),
        (nn.GroupNorm(2, 8), False, True, False),
        (nn.GroupNorm(2, 8), True, False, False),  # the bias then outgrows the rest
        (nn.Sequential(nn.ReLU(), nn.BatchNorm2d(8)), False, False, True),
        (nn.Sequential(nn.Softplus(), nn.BatchNorm2d(8)), False, False, False),
        (nn.Identity(), False, False, False),
    ],
)
def test_toys(norm: nn.Module, bias: bool, always: bool, by_batch: bool) -> None:
    torch.manual_seed(0)
    model = Post(norm, bias=bias)
    found = find_scale_free(model, (3, 8, 8))
    assert ("inner.weight" in found.always, "inner.weight" in found.batch) == (always, by_batch)
    assert "head.weight" not in found.under("train")


def test_zeros_hide_nothing_and_nothing_is_touched() -> None:
    """A residual branch whose last scale is zero lets no gradient through; statistics and generator stay."""
    model = timm.create_model("resnet10t", zero_init_last=True)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    found = find_scale_free(model, (3, 64, 64))
    assert torch.equal(torch.rand(2), expected)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert "layer1.0.conv2.weight" in found.batch
    assert model.training
    assert all(p.requires_grad for p in model.parameters())


def test_only_what_trains_counts_and_no_classifier() -> None:
    model = timm.create_model("resnet10t")
    free = find_scale_free(model, (3, 64, 64))
    last = {name for name in names(model) if name.startswith("layer4.")}
    found = network_traits(model, last, classifier(model), free)
    assert (found.decayed, found.batch_free, found.always_free) == (3, 3, 0)
    assert found.normed
    assert (found.bare("train"), found.bare("frozen")) == (0, 3)
    head = network_traits(model, classifier(model), classifier(model), free)
    assert (head.decayed, head.batch_free) == (0, 0)
    assert head.normed, "where nothing is decayed"
    assert head.batchnorms == sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert found.name == "resnet10t.c3_in1k"
    assert found.parameters == sum(p.numel() for p in model.parameters())


def test_half_of_the_weights_decide() -> None:
    def traits(by_batch: int) -> NetworkTraits:
        return NetworkTraits(decayed=10, batch_free=by_batch, always_free=2, batchnorms=1)

    assert traits(5).normed
    assert not traits(4).normed

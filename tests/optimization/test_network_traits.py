"""Which weights BatchNorm follows, on timm's networks and on toys."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from tl_kit.optimization.network_traits import bare_weights, network_traits
from tl_kit.zoo.heads import classifier_names, in_modules


def classifier(model: nn.Module) -> set[str]:
    heads = classifier_names(model)
    return {name for name, _ in model.named_parameters() if in_modules(name, heads)}


def bare(model: nn.Module) -> tuple[list[str], int]:
    return bare_weights(model, {name for name, _ in model.named_parameters()}, classifier(model))


def made(name: str) -> nn.Module:
    with torch.device("meta"):
        return timm.create_model(name)


@pytest.mark.parametrize(
    "name", ["tf_efficientnet_lite0", "resnet18", "densenet121", "levit_128s", "res2net50_26w_4s", "convmixer_768_32"]
)
def test_batchnorm_follows_every_weight(name: str) -> None:
    assert bare(made(name))[0] == []


@pytest.mark.parametrize(
    "name", ["test_vit", "test_convnext", "test_nfnet", "test_efficientnet_gn", "test_efficientnet_evos", "resnet50_gn"]
)
def test_batchnorm_follows_no_weight(name: str) -> None:
    found, decayed = bare(made(name))
    assert len(found) == decayed > 0


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("tf_efficientnet_b0", ".se."),
        ("mixnet_s", ".se."),
        ("seresnet18", ".se."),
        ("vgg11_bn", "pre_logits."),
        ("efficientformer_l1", "stages.3.blocks.4."),
    ],
)
def test_some_weights_are_bare_in_a_network_of_batchnorm(name: str, pattern: str) -> None:
    found, decayed = bare(made(name))
    assert found
    assert all(pattern in weight for weight in found)
    assert 2 * len(found) <= decayed


def test_transformer_stages_outweigh_a_stem_with_batchnorm() -> None:
    found, decayed = bare(made("coatnet_nano_rw_224"))
    assert decayed / 2 < len(found) < decayed


def test_only_what_trains_counts_and_no_classifier() -> None:
    model = made("efficientformer_l1")
    names = {name for name, _ in model.named_parameters()}
    last = {name for name in names if name.startswith("stages.3.blocks.4.")}
    found, decayed = bare_weights(model, last, classifier(model))
    assert len(found) == decayed == 4
    assert bare_weights(model, classifier(model), classifier(model)) == ([], 0)


def test_toys() -> None:
    conv = nn.Conv2d(3, 3, 1)
    assert bare(nn.Sequential(conv, nn.GELU(), nn.BatchNorm2d(3)))[0] == []
    assert bare(nn.Sequential(conv, nn.SyncBatchNorm(3)))[0] == []
    assert bare(nn.Sequential(conv, nn.GroupNorm(1, 3), nn.BatchNorm2d(3)))[0] == ["0.weight"]
    assert bare(nn.Sequential(conv, nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)))[0] == ["0.weight"]
    branches = nn.ModuleList([nn.Conv2d(3, 3, size) for size in (1, 3)])
    assert bare(nn.Sequential(branches, nn.BatchNorm2d(6)))[0] == []


def test_traits_count_what_trains_and_every_batchnorm() -> None:
    model = made("efficientformer_l1")
    found = network_traits(model, {name for name, _ in model.named_parameters()}, classifier(model))
    bare_names, decayed = bare(model)
    assert (found.bare, found.decayed) == (len(bare_names), decayed)
    assert found.batchnorms == sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert found.normed
    head = network_traits(model, classifier(model), classifier(model))
    assert (head.bare, head.decayed, head.batchnorms) == (0, 0, found.batchnorms)
    assert head.normed, "where nothing is decayed"

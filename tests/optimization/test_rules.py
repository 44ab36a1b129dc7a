"""Default optimizers, rates and decays by what follows the weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import timm
import torch
from timm.models.convnext import ConvNeXt
from timm.models.mlp_mixer import MlpMixer
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from tl_kit.config import OptimizerDefaults
from tl_kit.optimization.optimizers import create_optimizer, default_lr, default_weight_decay
from tl_kit.optimization.param_groups import param_groups
from tl_kit.optimization.rules import RunFacts, bare_decay, bare_weights, decay, optimizer_name, rate_scale
from tl_kit.zoo.heads import classifier_names, in_modules

DEFAULTS = OptimizerDefaults()


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


def facts(**changes: object) -> RunFacts:
    usual = RunFacts(
        pretrained=True,
        head_only=False,
        mostly_new=False,
        decayed=10,
        bare=0,
        statistics="train",
        clips=True,
        steps=384,
    )
    return replace(usual, **changes)


@pytest.mark.parametrize("policy", [{}, {"mostly_new": True}, {"head_only": True}], ids=["most", "last", "head"])
@pytest.mark.parametrize("statistics", ["train", "frozen"])
def test_networks_of_batchnorm_keep_what_they_had(policy: dict[str, bool], statistics: str) -> None:
    """Figures as they were before the rules looked at the network."""
    known = facts(**policy, statistics=statistics)
    assert optimizer_name(known, normed="momentum", bare="adamw") == "momentum"
    for name in ("momentum", "sgd", "adamw", "lion"):
        clipped = name in DEFAULTS.clipped
        scale = 1.0 if "head_only" in policy else 0.1
        if "head_only" not in policy and clipped:
            scale = 0.2 if statistics == "frozen" else 0.3
        elif "mostly_new" in policy:
            scale = 1.0
        assert rate_scale(known, name) == scale
        found = decay(known, name, usual=0.05, lr=0.1, options={})
        assert found == (0.005 if clipped and statistics == "frozen" else 0.05)


@pytest.mark.parametrize(("share", "expected"), [(0, "momentum"), (5, "momentum"), (6, "adamw"), (10, "adamw")])
def test_half_of_the_weights_decides(share: int, expected: str) -> None:
    assert optimizer_name(facts(bare=share), normed="momentum", bare="adamw") == expected


@pytest.mark.parametrize("pretrained", [True, False])
@pytest.mark.parametrize("mostly_new", [False, True])
@pytest.mark.parametrize("steps", [20, 384, 100_000])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("momentum", {}),
        ("momentum", {"momentum": 0.99}),
        ("sgd", {}),
        ("nesterov", {}),
        ("sgdw", {}),
        ("adamw", {}),
        ("lion", {}),
        ("muon", {}),
    ],
)
def test_no_default_decay_takes_much_of_bare_weights(
    name: str, options: dict[str, object], steps: int, mostly_new: bool, pretrained: bool
) -> None:
    """Under a constant rate, which is the most that a schedule can be: what is left of weights without a gradient."""
    known = facts(bare=10, steps=steps, mostly_new=mostly_new, pretrained=pretrained)
    lr = default_lr(name, pretrained=False) * rate_scale(known, name)
    found = decay(known, name, usual=default_weight_decay(name), lr=lr, options=options)
    assert found > 0
    assert math.exp(-0.26) < left_over(name, lr, found, steps=min(steps, 400), all_steps=steps, options=options) <= 1


def left_over(
    name: str, lr: float, weight_decay: float, *, steps: int, all_steps: int, options: dict[str, object]
) -> float:
    """Of a weight of 1 after so many steps without a gradient; fewer, at a higher decay, stand for all."""
    weight = nn.Parameter(torch.ones(1, 1))
    optimizer = create_optimizer(name, [weight], lr=lr, weight_decay=weight_decay * all_steps / steps, options=options)
    for _ in range(steps):
        weight.grad = torch.zeros_like(weight)
        optimizer.step()
    return float(weight.detach())


def test_mixed_networks_decay_their_bare_weights_gently() -> None:
    known = facts(bare=4)
    assert known.normed
    assert decay(known, "momentum", usual=0.05, lr=0.03, options={}) == 0.05
    assert bare_decay(known, "momentum", usual=0.05, lr=0.03, options={}) == pytest.approx(0.25 / (0.03 * 10 * 384))


NETWORKS = {
    "ViT": lambda: VisionTransformer(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=3),
    "ConvNeXt": lambda: ConvNeXt(depths=(1, 1, 1, 1), dims=(8, 8, 16, 32), num_classes=3),
    "Mixer": lambda: MlpMixer(img_size=32, patch_size=8, num_blocks=2, embed_dim=32, num_classes=3),
}


@pytest.fixture
def one_thread() -> Iterator[None]:
    """So small tensors are not worth handing out, least of all on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("given", [None, "momentum"])
def test_no_matrix_leaves_half_to_twice_its_norm(network: str, given: str | None) -> None:
    """384 steps of noise, clipped as in the loop, at the highest rate throughout."""
    torch.manual_seed(0)
    model = NETWORKS[network]()
    weights, decayed = bare(model)
    assert len(weights) == decayed
    known = facts(bare=len(weights), decayed=decayed)
    name = given or optimizer_name(known, normed="momentum", bare="adamw")
    assert given or name == "adamw"
    lr = default_lr(name, pretrained=False) * rate_scale(known, name)
    found = decay(known, name, usual=default_weight_decay(name), lr=lr, options={})
    trained = {name for name, _ in model.named_parameters()}
    groups = param_groups(model, weight_decay=found, layer_decay=None, trainable=trained, lr=lr)
    optimizer = create_optimizer(name, groups, lr=lr, weight_decay=found)
    matrices = {name: model.get_parameter(name) for name in weights}
    before = {name: float(weight.detach().norm()) for name, weight in matrices.items()}
    for _ in range(384):
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    ratios = {name: float(weight.detach().norm()) / before[name] for name, weight in matrices.items()}
    assert min(ratios.values()) > 0.5
    assert max(ratios.values()) < 2

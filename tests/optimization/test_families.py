"""No default run takes away the weights that no norm follows, or makes them grow: over families of timm, mechanically.

What a run does to a weight of which the gradients say nothing is its optimizer, rate, decay and schedule. So some of
its elements stand for each tensor, and noise for each gradient, of the norm at which gradients are clipped over the
whole network; every step of a default run is taken.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.layers import GatedMlp
from timm.models.convmixer import ConvMixer
from timm.models.metaformer import MetaFormer
from timm.models.mlp_mixer import MlpMixer, ResBlock, SpatialGatingBlock
from torch import Tensor, nn

from tl_kit.config import FinetuneConfig
from tl_kit.freezing.policies import parse_policy
from tl_kit.optimization.cases import Case
from tl_kit.optimization.network_traits import ScaleFree, find_scale_free, network_traits, shrinking_weights
from tl_kit.optimization.optimizers import create_optimizer
from tl_kit.optimization.param_groups import param_groups
from tl_kit.optimization.rules import Hyperparameters, hyperparameters
from tl_kit.optimization.schedules import create_schedule
from tl_kit.zoo.heads import classifier_names, in_modules

pytestmark = pytest.mark.usefixtures("one_thread")

NARROW = {"img_size": 64, "embed_dim": 48, "depth": 2, "num_heads": 3}
STAGES = {"dims": (8, 16, 16, 32), "depths": (1, 1, 1, 1)}
WINDOWS = {"img_size": 64, "embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)}
MIXER: dict[str, Any] = {"num_classes": 3, "img_size": 64, "num_blocks": 2, "embed_dim": 32}
FAMILIES: dict[str, dict[str, Any]] = {
    "beit_base_patch16_224": NARROW,
    "beitv2_base_patch16_224": NARROW,
    "cait_xxs24_224": NARROW,
    "convnext_atto": STAGES,
    "convnextv2_atto": STAGES,
    "deit3_small_patch16_224": NARROW,
    "deit_tiny_distilled_patch16_224": NARROW,
    "densenet121": {"block_config": (2, 2, 2, 2), "growth_rate": 8},
    "dla46_c": {},
    "edgenext_xx_small": {},
    "efficientvit_b0": {},
    "eva02_tiny_patch14_224": {**NARROW, "img_size": 56},
    "ghostnet_050": {},
    "lcnet_035": {},
    "mnasnet_small": {},
    "mobilenetv2_035": {},
    "mobilenetv3_small_050": {},
    "mobilenetv4_conv_small_035": {},
    "mobilevit_xxs": {},
    "mobilevitv2_050": {},
    "regnetx_002": {},
    "resnet10t": {"channels": (16, 16, 32, 32), "stem_width": 8},
    "resnetv2_50": {"layers": (1, 1, 1, 1), "channels": (16, 32, 32, 64), "stem_chs": 16},
    "semnasnet_075": {},
    "swin_tiny_patch4_window7_224": {**WINDOWS, "window_size": 4},
    "swinv2_cr_tiny_224": WINDOWS,
    "swinv2_tiny_window8_256": {**WINDOWS, "window_size": 4},
    "test_byobnet": {},
    "test_coatnet": {},
    "test_efficientnet": {},
    "test_efficientnet_evos": {},
    "test_efficientnet_gn": {},
    "test_mambaout": {},
    "test_maxvit": {},
    "test_nfnet": {},
    "test_resnet": {},
    "test_vit": {},
    "test_vit_relpos": {},
    "tinynet_e": {},
    "vit_base_patch16_clip_224": NARROW,
    "vit_base_patch16_siglip_224": NARROW,
    "vit_small_patch14_dinov2": {**NARROW, "img_size": 56},
    "xcit_nano_12_p16_224": {"img_size": 64, "depth": 2},
}
CLASSES = {
    "ConvMixer": lambda: ConvMixer(32, 2, patch_size=7, num_classes=3),
    "gMLP": lambda: MlpMixer(**MIXER, block_layer=SpatialGatingBlock, mlp_layer=GatedMlp, mlp_ratio=4),
    "MetaFormer": lambda: MetaFormer(depths=(1, 1, 1, 1), dims=(16, 16, 32, 32), num_classes=3),
    "Mixer": lambda: MlpMixer(**MIXER),
    "ResMLP": lambda: MlpMixer(**MIXER, block_layer=ResBlock, mlp_ratio=4),
}


def built(family: str) -> nn.Module:
    torch.manual_seed(0)
    return CLASSES[family]() if family in CLASSES else timm.create_model(family, num_classes=3, **FAMILIES[family])


def of(family: str, model: nn.Module) -> tuple[set[str], set[str], ScaleFree]:
    names = {name for name, _ in model.named_parameters()}
    heads = classifier_names(model)
    card = getattr(model, "pretrained_cfg", None) or {}
    side = card["input_size"][1] if card.get("fixed_input_size") else 64
    side = FAMILIES.get(family, {}).get("img_size", side)
    return names, {name for name in names if in_modules(name, heads)}, find_scale_free(model, (3, side, side))


@pytest.mark.parametrize("family", [*FAMILIES, *CLASSES])
def test_what_no_norm_follows_keeps_half_to_twice_its_norm(family: str) -> None:
    model = built(family)
    names, classifier, free = of(family, model)
    traits = network_traits(model, names, classifier, free)
    for images in (300, 3000):
        case = Case(images=images, classes=3, pretrained=True, network=traits, policy=parse_policy("full"))
        rules = hyperparameters(case, FinetuneConfig(model="m", data=Path("imgs")))
        bare = shrinking_weights(model, names, classifier, free.under(rules.statistics.value))
        ratios = after_noise(model, rules, bare, steps=rules.epochs.value * math.ceil(images / rules.batch_size.value))
        matrices = {name: ratios[name] for name in bare if name in ratios}
        assert matrices or traits.normed
        assert {name: ratio for name, ratio in matrices.items() if not 0.5 < ratio < 2} == {}, rules


def after_noise(model: nn.Module, rules: Hyperparameters, bare: list[str], *, steps: int) -> dict[str, float]:
    """Of each tensor of two dimensions or more, its norm after the run over its norm before.

    A gate that starts at next to nothing (gMLP, NFNet) has nothing to lose, and is left out.
    """
    parts, groups = samples(model, rules, bare)
    optimizer = create_optimizer(
        rules.optimizer.value, groups, lr=rules.rate.value, weight_decay=rules.decay.value, options=rules.options
    )
    warmup = round(rules.warmup.value * steps / rules.epochs.value)
    schedule = create_schedule("cosine", total_steps=steps, warmup_steps=warmup)
    before = {name: float(part.norm()) for name, part in parts.items()}
    scale = sum(p.numel() for p in model.parameters()) ** -0.5
    generator = torch.Generator().manual_seed(0)
    tensors = [tensor for group in optimizer.param_groups for tensor in group["params"]]
    lengths = [len(tensor) for tensor in tensors]
    noise = torch.empty(sum(lengths))
    for tensor, part in zip(tensors, noise.split(lengths), strict=True):
        tensor.grad = part
    for group in optimizer.param_groups:
        if "fused" in group:  # one call for a group takes half the time
            group["fused"] = True
    for step in range(steps):
        factor = schedule(step)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        torch.randn(len(noise), generator=generator, out=noise).mul_(scale)
        optimizer.step()
    return {
        name: float(part.norm()) / before[name]
        for name, part in parts.items()
        if part.numel() ** -0.5 * before[name] > 1e-4
    }


def samples(
    model: nn.Module, rules: Hyperparameters, bare: list[str], *, most: int = 64
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """At most so many elements of each matrix, as views of one tensor a group; and the run's groups over these."""
    groups = param_groups(
        model,
        weight_decay=rules.decay.value,
        layer_decay=rules.layer_decay.value,
        trainable={name for name, _ in model.named_parameters()},
        lr=rules.rate.value,
        decays={} if rules.bare_decay is None else dict.fromkeys(bare, rules.bare_decay.value),
    )
    parts: dict[str, Tensor] = {}
    small = []
    for group in groups:
        named = zip(group.pop("param_names"), group["params"], strict=True)
        kept = {name: p.detach().flatten()[:most] for name, p in named if p.ndim > 1}
        if not kept:
            continue
        flat = nn.Parameter(torch.cat(list(kept.values())))
        small.append({**group, "params": [flat]})
        lengths = [len(part) for part in kept.values()]
        parts.update(zip(kept, flat.detach().split(lengths), strict=True))
    return parts, small


@pytest.mark.parametrize("family", ["test_vit", "convnext_atto", "Mixer", "test_nfnet"])
def test_these_have_few_weights_that_batchnorm_follows(family: str) -> None:
    model = built(family)
    assert not network_traits(model, *of(family, model)).normed

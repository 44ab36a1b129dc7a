"""Class activation maps: of the library's values, with the planted thing in their light, and without a trace."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from tl_kit.errors import ConfigError
from tl_kit.inference.class_maps import class_maps, deletion_score
from tl_kit.zoo.heads import classifier_names

FAMILIES: dict[
    str, dict[str, Any]
] = {  # convolutions, tokens with and without a class token, windows, channels last, mixers, hybrids, no norm
    "test_resnet": {},
    "test_efficientnet": {},
    "test_convnext": {},
    "test_nfnet": {},
    "test_byobnet": {},
    "test_mambaout": {},
    "test_maxvit": {"img_size": 64},
    "test_coatnet": {"img_size": 64},
    "test_vit": {"img_size": 64},
    "test_vit3": {"img_size": 64},
    "swin_tiny_patch4_window7_224": {"img_size": 64, "window_size": 2, "embed_dim": 24, "num_heads": (1, 2, 3, 4)},
    "mixer_s32_224": {"img_size": 64},
    "poolformer_s12": {},
    "pvt_v2_b0": {"embed_dims": (8, 16, 24, 32), "num_heads": (1, 1, 1, 2)},
    "deit_tiny_distilled_patch16_224": {"img_size": 64, "embed_dim": 24, "depth": 2},
}
SIDE = 64


def network(name: str) -> nn.Module:
    torch.manual_seed(3)
    model: nn.Module = timm.create_model(name, num_classes=3, **FAMILIES[name])
    for classifier in classifier_names(model):  # some families start with zeros
        nn.init.normal_(model.get_submodule(classifier).weight)
    return model


def noise(images: int = 2, side: int = SIDE) -> Tensor:
    return torch.randn(images, 3, side, side, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_has_a_map_and_is_as_before(name: str) -> None:
    model = network(name).train()
    next(model.parameters()).requires_grad_(False)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    maps = class_maps(model, noise(), [0, 2])
    assert maps.shape == (2, SIDE, SIDE)
    assert maps.dtype == np.float32
    assert np.isfinite(maps).all()
    assert maps.min() >= 0
    assert np.isin(maps.max(axis=(1, 2)), (0, 1)).all()
    assert any(class_maps(model, noise(), [place, place]).std() > 0 for place in range(3)), "no class has a map"
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert [each.requires_grad for each in model.parameters()][:2] == [False, True]
    assert all(each.grad is None for each in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    assert torch.is_grad_enabled()


def test_a_pooled_linear_head_has_the_map_of_its_weights() -> None:
    """relu of the classifier's weights on the features (Zhou et al. 2016), to which Grad-CAM comes down there."""
    model, pixels = network("test_resnet").eval(), noise(3)
    with torch.no_grad():
        features = model.forward_features(pixels)
    maps = functional.relu(torch.einsum("kc,nchw->nkhw", model.get_classifier().weight, features))
    expected = functional.interpolate(maps, size=(SIDE, SIDE), mode="bilinear")[range(3), [2, 0, 1]].detach()
    expected /= expected.amax(dim=(1, 2), keepdim=True).clamp_min(1e-12)
    assert class_maps(model, pixels, [2, 0, 1]) == pytest.approx(expected.numpy(), abs=1e-5)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="torchcam needs Python 3.11")
@pytest.mark.parametrize(
    ("name", "layer"), [("test_resnet", "layer4"), ("test_vit", "blocks.4"), ("test_vit3", "norm")]
)
def test_maps_are_those_of_torchcam(name: str, layer: str) -> None:
    from torchcam.methods import GradCAM

    def places(output: Tensor) -> Tensor:
        return output if output.ndim == 4 else output[:, -16:].transpose(1, 2).reshape(len(output), -1, 4, 4)

    model, pixels, classes = network(name).eval(), noise(2), [1, 2]
    with GradCAM(model, layer, reshape_transform=places) as library:
        (low,) = library(classes, model(pixels), normalized=False)
    expected = functional.interpolate(low[:, None], size=(SIDE, SIDE), mode="bilinear")[:, 0]
    expected /= expected.amax(dim=(1, 2), keepdim=True).clamp_min(1e-12)
    assert class_maps(model, pixels, classes) == pytest.approx(expected.numpy(), abs=1e-5)


class Given:
    """An extractor of torchcam that has its map already: the library's takes the gradient of what the score is of."""

    def __init__(self, model: nn.Module, maps: Tensor) -> None:
        self.model, self.maps = model, maps

    def __call__(self, classes: list[int], scores: Tensor) -> list[Tensor]:
        return [self.maps]

    def fuse_cams(self, maps: list[Tensor]) -> Tensor:
        return maps[0]

    def _hooks_off(self) -> nullcontext[None]:
        return nullcontext()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="torchcam needs Python 3.11")
def test_deletion_scores_are_those_of_torchcam() -> None:
    from torchcam.metrics import DeletionInsertionMetric

    model, pixels, maps = network("test_resnet").eval(), noise(1), torch.rand(1, SIDE, SIDE)
    metric = DeletionInsertionMetric(Given(model, maps), lambda scores: scores.softmax(1), steps=8)
    metric.update(pixels, [2])
    score = deletion_score(model, pixels, [2], maps.numpy(), steps=8)
    assert score == pytest.approx([metric.summary()["deletion_auc"]], abs=1e-6)


STICKER = 0.25  # of the side


def stickers(images: int, seed: int, *, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Noise, of which the odd images have a sticker somewhere; the class, and where the sticker is."""
    generator, wide = torch.Generator().manual_seed(seed), round(side * STICKER)
    pixels = 0.5 * torch.randn(images, 3, side, side, generator=generator)
    labels, places = torch.arange(images) % 2, torch.zeros(images, side, side)
    for image in range(1, images, 2):
        row, column = torch.randint(0, side - wide, (2,), generator=generator).tolist()
        pixels[image, :, row : row + wide, column : column + wide] = torch.tensor([2.0, -1.5, 1.5]).view(3, 1, 1)
        places[image, row : row + wide, column : column + wide] = 1
    return pixels, labels, places


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("name", "side", "steps", "rate"), [("test_efficientnet", 128, 12, 5e-3), ("test_vit", 96, 40, 2e-3)]
)
def test_a_planted_sticker_lights_up_and_the_class_goes_with_it(name: str, side: int, steps: int, rate: float) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=2, **({"img_size": side} if name == "test_vit" else {}))
    pixels, labels, _ = stickers(16, seed=1, side=side)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    for _ in range(steps):
        loss = functional.cross_entropy(model(pixels), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    pixels, _, places = (each[1::2] for each in stickers(32, seed=2, side=side))
    classes = [1] * len(pixels)
    maps = class_maps(model, pixels, classes)
    inside = (maps * places.numpy()).sum(axis=(1, 2)) / maps.sum(axis=(1, 2))
    assert inside.mean() > 3 * STICKER**2
    noise = torch.rand(len(pixels), 1, 4, 4, generator=torch.Generator().manual_seed(4))
    chance = functional.interpolate(noise, size=(side, side))[:, 0].numpy()
    found, random = (deletion_score(model, pixels, classes, each).mean() for each in (maps, chance))
    assert found < 0.75 * random


def test_a_classifier_of_zeros_has_an_empty_map() -> None:
    model = network("test_resnet")
    nn.init.zeros_(model.get_classifier().weight)
    assert not class_maps(model, noise(), [0, 1]).any()


def test_a_network_without_feature_maps_is_refused() -> None:
    with pytest.raises(ConfigError, match="Sequential: has no feature maps"):
        class_maps(nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE**2, 3)), noise(), [0, 1])


def test_each_image_needs_a_class() -> None:
    with pytest.raises(ValueError, match="one class for each image, got 1 for 2"):
        class_maps(network("test_resnet"), noise(), [0])

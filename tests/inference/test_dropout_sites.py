"""Monte Carlo dropout: the mean over masks, image by image, in every way that timm writes dropout."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from itertools import product

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from tl_kit.config import McDropoutConfig
from tl_kit.inference.mc_dropout import DropoutSites, McDropout, find_dropout, image_keys

FAMILIES = ("test_resnet", "test_efficientnet", "test_convnext", "test_vit")  # calls of dropout in two, modules in two
SIDE, P, UNITS = 8, 0.3, 5


class Late(nn.Module):
    """Units, dropout, a linear layer: with UNITS units, 2^UNITS masks are all there are."""

    channels = False
    skip = False

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.units = nn.Conv2d(3, UNITS, SIDE, stride=SIDE // 2, padding=SIDE // 4)
        self.head = nn.Linear(UNITS, 3)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) / parameter[0].numel() ** 0.5

    def forward(self, images: Tensor) -> Tensor:
        rows = self.units(images)
        if self.channels:
            return self.head(functional.dropout2d(rows, P, self.training).mean((2, 3)))
        rows = rows.mean((2, 3))
        dropped = functional.dropout(rows, P, training=self.training)
        return self.head(rows + dropped if self.skip else dropped)

    def masked(self, images: Tensor, mask: Tensor) -> Tensor:
        """The same with a mask (UNITS,) in place of the noise."""
        rows = self.units(images).mean((2, 3))
        return self.head((rows if self.skip else 0) + rows * mask / (1 - P))


class Channels(Late):
    channels = True


class Skip(Late):
    skip = True


def pixels(count: int, side: int = SIDE, seed: int = 1) -> Tensor:
    return torch.randint(0, 256, (count, 3, side, side), generator=torch.Generator().manual_seed(seed)).byte()


def run(model: nn.Module, images: Tensor, passes: int, *, sites: DropoutSites | None = None, seed: int = 0) -> Tensor:
    """Probabilities (n, classes), in evaluation."""
    found = find_dropout(model, images.shape[1:]) if sites is None else sites
    with torch.inference_mode():
        config = McDropoutConfig(seed=seed)
        return McDropout(passes, found, config)(model, images.float() / 255, image_keys(images)).softmax(1)


@pytest.mark.parametrize("kind", [Late, Channels, Skip])
def test_the_mean_over_passes_converges_to_the_mean_over_all_masks(kind: type[Late]) -> None:
    model, images, passes = kind().eval(), pixels(4), 3000
    found = run(model, images, passes)
    mean, square = torch.zeros(4, 3).double(), torch.zeros(4, 3).double()
    with torch.no_grad():
        for mask in product((0.0, 1.0), repeat=UNITS):
            chance = (1 - P) ** sum(mask) * P ** (UNITS - sum(mask))
            value = model.masked(images.float() / 255, torch.tensor(mask)).double().softmax(1)
            mean, square = mean + chance * value, square + chance * value**2
    error = ((square - mean**2) / passes).sqrt()
    assert (error > 1e-5).all(), "dropout must matter here"
    assert ((found - mean).abs() < 4.5 * error).all()
    assert find_dropout(model, (3, SIDE, SIDE)) == DropoutSites(frozenset({0}), late=kind is not Skip)


def family(name: str, **options: float) -> nn.Module:
    model = copy.deepcopy(_family(name, **options))
    torch.manual_seed(0)
    return model


@cache
def _family(name: str, **options: float) -> nn.Module:
    """With BatchNorm statistics and a classifier that tell images apart."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=4, **options).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean of the passes
    with torch.no_grad():
        for _ in range(4):
            model(torch.rand(8, 3, 160, 160))
        for parameter in model.get_classifier().parameters():
            parameter.normal_(std=0.5)
    return model.eval()


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_gives_the_mean_over_masks_of_its_pooled_features(name: str) -> None:
    model, images, passes = family(name, drop_rate=0.4), pixels(3, 160), 400
    sites = find_dropout(model, (3, 160, 160))
    assert len(sites.active) == 1
    assert sites.late
    found = run(model, images, passes, sites=sites)
    with torch.no_grad():
        features = model.forward_head(model.forward_features(images.float() / 255), pre_logits=True)
        masks = torch.bernoulli(torch.full((4000, *features.shape), 0.6)) / 0.6
        each = model.get_classifier()(features * masks).double().softmax(-1)
    error = each.std(0) * (1 / passes + 1 / 4000) ** 0.5
    assert (error > 1e-6).all()
    assert ((found - each.mean(0)).abs() < 5 * error).all()


@pytest.mark.parametrize("name", FAMILIES)
def test_passes_differ_and_nothing_else_does(name: str) -> None:
    model, images = family(name, drop_rate=0.4, drop_path_rate=0.5), pixels(4, 160)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    one, two, other = run(model, images, 1), run(model, images, 2), run(model, images, 1, seed=1)
    assert (2 * two - one - one).abs().max() > 1e-4, "the second pass is not the first again"
    assert (one - other).abs().max() > 1e-4
    assert torch.equal(run(model, images, 1), one)
    assert not any(module.training for module in model.modules())
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    with torch.inference_mode():
        plain = model(images.float() / 255)
        assert torch.equal(plain, model(images.float() / 255)), "dropout is off again"


@pytest.mark.parametrize("name", FAMILIES)
def test_running_the_body_once_equals_running_all_of_it_every_time(name: str) -> None:
    model, images = family(name, drop_rate=0.4), pixels(5, 160)
    sites = find_dropout(model, (3, 160, 160))
    whole = run(model, images, 6, sites=replace(sites, late=False))
    torch.testing.assert_close(run(model, images, 6, sites=sites), whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("late", [True, False])
def test_other_images_their_order_and_the_batch_change_nothing(late: bool) -> None:
    model, images = family("test_resnet", drop_rate=0.4), pixels(6, 160)
    sites = replace(find_dropout(model, (3, 160, 160)), late=late)
    together = run(model, images, 5, sites=sites)
    alone = torch.cat([run(model, image[None], 5, sites=sites) for image in images])
    order = torch.tensor([3, 0, 5, 5, 1])
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-6)
    torch.testing.assert_close(run(model, images[order], 5, sites=sites), together[order], rtol=0, atol=1e-6)


def test_so_many_rows_at_once_change_nothing_and_more_passes_begin_with_fewer() -> None:
    model, images = family("test_resnet", drop_rate=0.4), pixels(3, 160)
    sites = find_dropout(model, (3, 160, 160))
    means = []
    with torch.inference_mode():
        for rows in (1, 7, 4096):
            sampler = McDropout(6, sites, McDropoutConfig(rows=rows))
            means.append(sampler(model, images.float() / 255, image_keys(images)))
    torch.testing.assert_close(means[0], means[2], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(means[1], means[2], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in FAMILIES),
        ("test_vit", {"drop_path_rate": 0.5}),  # stochastic depth is no dropout
        ("test_vit_relpos", {}),  # its dropout of 0.125 is on positions, which images share
    ],
)
def test_models_without_dropout_on_their_images_have_none(name: str, options: dict[str, float]) -> None:
    sites = find_dropout(timm.create_model(name, **options).eval(), (3, 160, 160))
    assert sites == DropoutSites(frozenset(), late=False)


def test_all_dropped_is_zero() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Dropout(1.0), nn.Linear(3 * SIDE * SIDE, 3)).eval()
    bias = model[2].bias.detach().double().softmax(0)
    torch.testing.assert_close(run(model, pixels(2), 3), bias.expand(2, 3), rtol=0, atol=1e-6)

"""Training augmentation on uint8 images: crops, flips, colour, erasing; its strength sized to the data."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode, v2

from tl_kit.config import AugmentConfig, AugmentLevels
from tl_kit.errors import ConfigError
from tl_kit.images.transforms import Preprocessing
from tl_kit.machine.random_state import own_random_state, seed_cpu
from tl_kit.optimization.rules import augmentation

__all__ = [
    "CROPS",
    "Lighting",
    "ShortSideCrop",
    "TrainTransform",
    "augment",
    "resolve_augment",
    "seeded_draws",
]

CROPS = ("resized", "short-side", "none")

# The principal components of ImageNet's pixels (values in 0 to 1), published with AlexNet's reimplementations.
_EIGENVALUES = (0.2175, 0.0188, 0.0045)
_EIGENVECTORS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))


def resolve_augment(
    level: AugmentConfig | str, options: Mapping[str, Any], *, images_per_class: float
) -> tuple[AugmentConfig, str]:
    """The augmentation that a run uses, and its name. ``options`` replace fields of it.

    "auto" follows from the images (:func:`tl_kit.optimization.rules.augmentation`). Raises ConfigError for an unknown
    level or a value out of range.
    """
    known = AugmentLevels()
    name = level if isinstance(level, str) else "custom"
    if name == "auto":
        name = augmentation(images_per_class, known).value
    if isinstance(level, str) and name not in known.levels:
        raise ConfigError(f"--augment {name}: known are auto, {', '.join(known.levels)}")
    base = known.levels[name] if isinstance(level, str) else level
    chosen = replace(base, **options)
    _check(chosen)
    return chosen, name if chosen == base else f"{name}, with {', '.join(f'{k}={v}' for k, v in options.items())}"


def _check(config: AugmentConfig) -> None:
    if config.crop not in CROPS:
        raise ConfigError(f"--aug crop={config.crop}: known are {', '.join(CROPS)}")
    for name in ("flip", "erasing", "brightness", "contrast"):
        if not 0 <= getattr(config, name) <= 1:
            raise ConfigError(f"--aug {name}={getattr(config, name)}: must be from 0 to 1")
    if not 0 <= config.lighting <= 10:
        raise ConfigError(f"--aug lighting={config.lighting}: must be from 0 to 10")
    for name in ("crop_scale", "crop_ratio", "short_side"):
        values = getattr(config, name)
        if len(values) != 2 or not 0 < values[0] <= values[1]:
            raise ConfigError(f"--aug {name}={values}: must be two positive numbers, the smaller one first")
    if config.crop_scale[1] > 1 or config.short_side[0] < 1 or config.short_side[1] > 4:
        raise ConfigError("--aug: crop_scale must be at most 1, short_side at least 1 and at most 4")


class ShortSideCrop(nn.Module):
    """The lecture's crop (Simonyan & Zisserman 2015): short side to a random length, then a random square.

    ``lengths`` in pixels, both ends included; ``size`` (h, w) of the crop.
    """

    def __init__(self, size: tuple[int, int], lengths: tuple[int, int]) -> None:
        super().__init__()
        self.resize = v2.RandomShortestSize(
            list(range(lengths[0], lengths[1] + 1)), interpolation=InterpolationMode.BILINEAR, antialias=True
        )
        self.crop = v2.RandomCrop(size, pad_if_needed=True)

    def forward(self, image: Tensor) -> Tensor:
        """uint8 (3, h', w') -> uint8 (3, h, w)."""
        out: Tensor = self.crop(self.resize(image))
        return out


class Lighting(nn.Module):
    """A shift along the principal colours of ImageNet (Krizhevsky et al. 2012, section 4.1).

    Adds ``[p1 p2 p3] [a1 l1, a2 l2, a3 l3]`` to each pixel, with p and l the eigenvectors and eigenvalues of RGB values
    between 0 and 1, and a normal of standard deviation ``deviation``, one draw an image.
    """

    def __init__(self, deviation: float) -> None:
        super().__init__()
        self.deviation = deviation

    def forward(self, image: Tensor) -> Tensor:
        """uint8 (3, h, w) -> uint8 (3, h, w)."""
        draws = torch.randn(3) * self.deviation * torch.tensor(_EIGENVALUES)
        shift = (torch.tensor(_EIGENVECTORS) @ draws * 255).to(image.device)
        return (image + shift.view(3, 1, 1)).round_().clamp_(0, 255).to(torch.uint8)


class TrainTransform(nn.Module):
    """Crop, mirror image, brightness and contrast, lighting, erasing: uint8 (3, h', w') -> uint8 (3, h, w).

    Crops are drawn of the whole image (:meth:`Preprocessing.whole`); where none is drawn (crop "none"), it takes images
    as evaluation crops them.
    """

    def __init__(self, preprocessing: Preprocessing, config: AugmentConfig = AugmentConfig()) -> None:
        super().__init__()
        size = preprocessing.input_size[1:]
        steps: list[nn.Module] = [_crop(size, config)]
        if config.flip:
            steps.append(v2.RandomHorizontalFlip(config.flip))
        if config.brightness or config.contrast:
            steps.append(v2.ColorJitter(brightness=config.brightness, contrast=config.contrast))
        if config.lighting:
            steps.append(Lighting(config.lighting))
        if config.erasing:
            mean = [round(255 * value) for value in preprocessing.mean]
            steps.append(v2.RandomErasing(config.erasing, value=mean))
        self.steps = nn.Sequential(*steps)

    def forward(self, image: Tensor) -> Tensor:
        """uint8 (3, h', w') -> uint8 (3, h, w)."""
        out: Tensor = self.steps(image)
        return out


def _crop(size: tuple[int, int], config: AugmentConfig) -> nn.Module:
    crop: nn.Module
    if not config.draws_crops:
        crop = nn.Identity()
    elif config.crop == "short-side":
        low, high = (round(min(size) * sides) for sides in config.short_side)
        crop = ShortSideCrop(size, (low, high))
    else:
        crop = v2.RandomResizedCrop(
            size,
            scale=config.crop_scale,
            ratio=config.crop_ratio,
            interpolation=InterpolationMode.BILINEAR,
            antialias=True,
        )
    return crop


def seeded_draws(*parts: object) -> None:
    """Seed the CPU's global generator from ``parts``; call it inside ``own_random_state``."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    seed_cpu(int.from_bytes(digest[:8], "big") >> 1)


def augment(images: list[Tensor], transform: nn.Module, *, seed: int, epoch: int, keys: list[str]) -> Tensor:
    """Apply ``transform`` to each image under a seed of its own: (seed, epoch, key) decide, not the batch or the order.

    Returns a uint8 batch (n, 3, h, w). The global random state is left as it was.
    """
    views = []
    with own_random_state():
        for image, key in zip(images, keys, strict=True):
            seeded_draws(seed, epoch, key)
            views.append(transform(image))
    return torch.stack(views)

"""Defaults of crops and augmentation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from tl_kit.flags import Flag
from tl_kit.number_ranges import AT_LEAST_ONE, AT_LEAST_TWO, NOT_NEGATIVE, OWN_CHECK, POSITIVE, SHARE

__all__ = [
    "CROP_MODES",
    "AugmentConfig",
    "AugmentLevels",
    "CropConfig",
    "CropModeConfig",
    "McDropoutConfig",
    "MirrorConfig",
]

CROP_MODES = ("center", "squash", "border")
"""timm's words for the ways of an image into the model's square."""


def _scales(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError("must be numbers with commas between, such as 1,1.15") from None


@dataclass(frozen=True, kw_only=True)
class CropConfig:
    """Test-time crops: 1 (centre), 5 (and the four corners) or 10 (and the mirror image of each), at every scale.

    A scale multiplies the size to which the model's own evaluation resizes an image before it crops.
    """

    crops: Annotated[
        int,
        OWN_CHECK,
        Flag(
            panel="Prediction",
            metavar="1|5|10",
            help="Centre, corners, mirror images, averaged (default: 1; without --scales, as the ensemble was made).",
            show_default=False,
        ),
    ] = 1
    scales: Annotated[
        tuple[float, ...],
        OWN_CHECK,
        Flag(
            panel="Prediction",
            metavar="S,...",
            help="Sizes of which to take the crops, such as 1,1.15; 1: the model's own (default: 1; without --crops, "
            "as the ensemble was made).",
            parse=_scales,
            show_default=False,
        ),
    ] = (1.0,)

    @property
    def views(self) -> int:
        """Crops an image in all, whose probabilities are averaged."""
        return self.crops * len(self.scales)

    def __str__(self) -> str:
        crops = "1 crop" if self.crops == 1 else f"{self.crops} crops"
        scales = ", ".join(f"{scale:g}" for scale in self.scales)
        return f"{crops} at scale{'s' if len(self.scales) > 1 else ''} {scales}"


@dataclass(frozen=True, kw_only=True)
class CropModeConfig:
    """The choice of ``--crop-mode auto``; docs/policies.md has the figures that it was set by.

    Modes are compared where a centre crop hides at least ``hidden_from`` of the pixels, on average over ``measured``
    training images. At most ``images`` of them are then cross-validated over ``folds`` folds, in each of ``modes``.
    Another mode than the model's own must be right more often by more than ``margin`` standard errors of the paired
    difference. Without features to compare, squash is taken where at least ``squash_from`` of the pixels are hidden.
    """

    modes: tuple[str, ...] = ("center", "squash")
    hidden_from: Annotated[float, SHARE] = 0.05
    measured: Annotated[int, AT_LEAST_ONE] = 200
    images: Annotated[int, AT_LEAST_ONE] = 1000
    folds: Annotated[int, AT_LEAST_TWO] = 5
    margin: Annotated[float, NOT_NEGATIVE] = 1.0
    squash_from: Annotated[float, SHARE] = 0.3


@dataclass(frozen=True, kw_only=True)
class MirrorConfig:
    """Mirror images as augmentation: where ``--aug flip`` says nothing, features tell whether they keep their classes.

    Heads at the usual penalty are cross-validated on the features of all stages side by side, over ``folds`` folds of
    about ``images`` training images, ``folds`` of each class at least. Training goes without mirror images where heads
    that are fitted to them too have the higher NLL, by more than ``margin`` standard errors of the paired difference
    and by ``least`` nats; it says so from ``doubt`` standard errors on. docs/policies.md has the figures.
    """

    images: Annotated[int, AT_LEAST_ONE] = 300
    folds: Annotated[int, AT_LEAST_TWO] = 5
    margin: Annotated[float, NOT_NEGATIVE] = 2.0
    doubt: Annotated[float, NOT_NEGATIVE] = 1.5
    least: Annotated[float, NOT_NEGATIVE] = 0.02


@dataclass(frozen=True, kw_only=True)
class McDropoutConfig:
    """Dropout at test time: the seed of its noise, and how many rows (images times passes) run at once."""

    seed: int = 0
    rows: Annotated[int, AT_LEAST_ONE] = 4096


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Augmentation of a training image, in this order.

    ``crop``: "resized" draws a share of the area (``crop_scale``) and an aspect ratio (``crop_ratio``) and resizes that
    piece; "short-side" resizes the short side to a length drawn from ``short_side`` (in sides of the input; the
    lecture's 256 to 480 for 224) and takes a random square; "none" is the crop of evaluation. ``flip`` is the
    probability of a mirror image. ``brightness`` and ``contrast`` are multiplied by a factor within so much of 1;
    ``lighting`` is the standard deviation of the shift along ImageNet's principal colours; ``erasing`` the probability
    that a rectangle is painted over in the mean colour.
    """

    crop: str = "resized"
    crop_scale: Annotated[tuple[float, float], POSITIVE] = (0.35, 1.0)
    crop_ratio: Annotated[tuple[float, float], POSITIVE] = (3 / 4, 4 / 3)
    short_side: Annotated[tuple[float, float], POSITIVE] = (256 / 224, 480 / 224)
    flip: Annotated[float, SHARE] = 0.5
    brightness: float = 0.0
    contrast: float = 0.0
    lighting: float = 0.0
    erasing: Annotated[float, SHARE] = 0.0

    @property
    def active(self) -> bool:
        """True where two views of an image can differ."""
        chances = (self.flip, self.brightness, self.contrast, self.lighting, self.erasing)
        return self.draws_crops or any(chance > 0 for chance in chances)

    @property
    def draws_crops(self) -> bool:
        """True where it draws crops of the whole image, instead of varying the crop of evaluation."""
        return self.crop != "none"


@dataclass(frozen=True, kw_only=True)
class AugmentLevels:
    """Augmentation levels by name (``--augment``), and the training images a class from which ``auto`` takes each."""

    levels: Mapping[str, AugmentConfig] = field(
        default_factory=lambda: {
            "none": AugmentConfig(crop="none", flip=0.0),
            "light": AugmentConfig(crop_scale=(0.7, 1.0)),
            "standard": AugmentConfig(),
            "strong": AugmentConfig(crop_scale=(0.2, 1.0), brightness=0.4, contrast=0.4, lighting=0.1, erasing=0.25),
        }
    )
    light_below_per_class: int = 20

"""Fixed test-time crops of one image: centre, corners, mirror images, at several scales (Krizhevsky et al. 2012)."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tl_kit.config import CropConfig
from tl_kit.errors import ConfigError
from tl_kit.images.transforms import Preprocessing

__all__ = ["check_crops", "check_fit", "crop_views", "decode_side", "write_views"]

_CROPS = (1, 5, 10)
_MAX_SCALES = 8
_MAX_SCALE = 4.0  # an image of extreme aspect, enlarged further, could fill the memory


def check_crops(config: CropConfig) -> None:
    """Raises ConfigError, naming ``--crops`` or ``--scales``, for a choice that no model can take."""
    if type(config.crops) is not int or config.crops not in _CROPS:
        raise ConfigError(f"--crops {config.crops}: must be 1, 5 or 10")
    shown = ",".join(map(str, config.scales))
    if not 1 <= len(config.scales) <= _MAX_SCALES:
        raise ConfigError(f"--scales {shown}: give 1 to {_MAX_SCALES} numbers")
    for scale in config.scales:
        if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not 0 < scale <= _MAX_SCALE:
            raise ConfigError(f"--scales {shown}: each must be a number above 0 and at most {_MAX_SCALE:g}")
    if len(set(config.scales)) < len(config.scales):
        raise ConfigError(f"--scales {shown}: names a scale twice")


def check_fit(config: CropConfig, preprocessing: Preprocessing, *, name: str) -> None:
    """Raises ConfigError where a scale leaves less than a crop of the image that the model ``name`` would see.

    The model's own evaluation, one crop at scale 1, is always allowed: timm pads where its card asks for that.
    """
    if config == CropConfig():
        return
    size = preprocessing.input_size[1:]
    least = max(side / full for side, full in zip(size, preprocessing.sides(), strict=True))
    for scale in config.scales:
        sides = preprocessing.sides(scale)
        if any(side < wanted for side, wanted in zip(sides, size, strict=True)):
            raise ConfigError(
                f"--scales {scale:g}: resizes images to {min(sides)} pixels, less than the {size[0]}x{size[1]} crop of "
                f"{name}; from {math.ceil(100 * least) / 100:g} on they are large enough"
            )


def decode_side(preprocessing: Preprocessing, config: CropConfig) -> int:
    """The ``min_side`` with which to decode an image, in pixels: enough for the largest scale."""
    return preprocessing.scaled(max(config.scales)).min_side


def crop_views(image: Image.Image, preprocessing: Preprocessing, config: CropConfig = CropConfig()) -> Tensor:
    """The crops of an RGB image: uint8 (crops * scales, 3, h, w) of the model's input size.

    By ascending scale; at each: centre, top left, top right, bottom left, bottom right, then their mirror images in
    the same order. At scale 1 the centre is ``preprocessing.evaluate``, bit for bit. A scale s resizes to
    round(s * side) where that evaluation resizes to ``side``: the shorter edge (crop mode "center"), both ("squash"),
    or the longer one ("border"). What is then smaller than the crop is padded as timm pads it (for "border": with the
    mean colour), and the crops are those of the padded image. Along an edge that is exactly as long as the crop, the
    corners coincide with the centre.
    """
    if config == CropConfig():
        return preprocessing.evaluate(image).unsqueeze(0)
    height, width = preprocessing.input_size[1:]
    views: list[Tensor] = []
    for scale in sorted(config.scales):
        pixels = preprocessing.padded(preprocessing.scaled(scale).resize(image))
        corners = _offsets(pixels, height, width)[: min(config.crops, 5)]
        crops = [pixels[:, top : top + height, left : left + width] for top, left in corners]
        views += crops if config.crops < 10 else [*crops, *(crop.flip(-1) for crop in crops)]
    return torch.stack(views)


def write_views(
    image: Image.Image, preprocessing: Preprocessing, out: NDArray[np.uint8], config: CropConfig = CropConfig()
) -> None:
    """:func:`crop_views`, written to ``out`` (crops * scales, 3, h, w)."""
    if config == CropConfig():
        preprocessing.evaluate_into(image, out[0])
    else:
        out[:] = crop_views(image, preprocessing, config).numpy()


def _offsets(pixels: Tensor, height: int, width: int) -> list[tuple[int, int]]:
    """Top and left of the five crops, the centre first; half a pixel is rounded to even, as torchvision does."""
    bottom, right = pixels.shape[1] - height, pixels.shape[2] - width
    return [(round(bottom / 2), round(right / 2)), (0, 0), (0, right), (bottom, 0), (bottom, right)]

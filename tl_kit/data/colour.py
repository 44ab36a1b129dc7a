"""Any Pillow mode to 8-bit RGB."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tl_kit.errors import ImageError

__all__ = ["to_rgb"]

_BLOCK = 2**20  # samples that are turned into float64 at a time


def to_rgb(image: Image.Image) -> Image.Image:
    """An image of any mode as RGB; transparency is composited onto white. The input is not changed.

    Samples of more than 8 bits are scaled, never clipped: 16-bit by their high byte; 32-bit integers and floats by
    the smallest of the ranges 0..1 (floats only), 0..255 and 0..65535 that holds them all, and by their own minimum
    and maximum where none does (NaN and infinity count as 0).

    Raises :class:`ImageError` on a mode without a way to RGB (CIE Lab).
    """
    if image.mode.startswith("I") or image.mode == "F":
        return _from_samples(image)
    if image.has_transparency_data:
        return _onto_white(image)
    if image.mode == "RGB":
        return image
    if image.mode == "LAB":
        raise ImageError("colour mode LAB is not supported: convert it to RGB")
    return image.convert("RGB")


def _onto_white(image: Image.Image) -> Image.Image:
    key = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(key, tuple) and max(key) > 255:
        # A 16-bit PNG: Pillow keeps the high byte of the pixels, but not of the colour that stands for transparent.
        image = image.copy()
        image.info["transparency"] = tuple(value >> 8 for value in key)
    rgba = image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")
    white = Image.new("RGB", image.size, "white")
    white.paste(rgba.convert("RGB"), mask=rgba.getchannel("A"))
    return white


def _from_samples(image: Image.Image) -> Image.Image:
    samples = np.asarray(image)
    levels = (samples >> 8).astype(np.uint8) if image.mode.startswith("I;16") else _levels(samples)
    key = image.info.get("transparency")
    if isinstance(key, int):
        levels = np.where(samples == key, np.uint8(255), levels)
    return Image.fromarray(levels).convert("RGB")


def _levels(samples: NDArray[Any]) -> NDArray[np.uint8]:
    """Integers or floats, shape (height, width), as levels in 0..255; some rows at a time, in float64."""
    rows = max(1, _BLOCK // samples.shape[1])
    places = [slice(start, start + rows) for start in range(0, len(samples), rows)]
    ranges = [(block.min(), block.max()) for block in (_finite(samples[place]) for place in places)]
    low, high = float(min(low for low, _ in ranges)), float(max(high for _, high in ranges))
    levels = np.empty(samples.shape, np.uint8)
    for place in places:
        block = _finite(samples[place])
        if low >= 0 and 255 < high <= 65535:
            levels[place] = np.floor(block / 256)
            continue
        if low < 0 or high > 65535:
            block = (block - low) * (255 / (high - low) if high > low else 0.0)
        elif samples.dtype.kind == "f" and high <= 1:
            block = block * 255
        levels[place] = np.rint(block)
    return levels


def _finite(samples: NDArray[Any]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):  # a signalling NaN
        wide = samples.astype(np.float64)
    return np.nan_to_num(wide, copy=False, nan=0.0, posinf=0.0, neginf=0.0)

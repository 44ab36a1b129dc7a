"""Any Pillow mode to 8-bit RGB."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tl_kit.errors import ImageError
from tl_kit.images.deep import SampleRanges, levels
from tl_kit.images.samples import Samples

__all__ = ["deep_to_rgb", "to_rgb"]

_BLOCK = 2**20  # samples that are turned into float64 at a time
_WHITE = 65535.0


def deep_to_rgb(samples: Samples, ranges: SampleRanges | None) -> Image.Image:
    """Samples of more than 8 bits as RGB, over the range that ``ranges`` have for their kind; on white.

    Without one, over the full range of their type: 16-bit by their high byte; 32-bit integers, signed ones and floats
    by the smallest of 0..1 (floats only), 0..255 and 0..65535 that holds the image's values, and by its own minimum and
    maximum where none does.
    """
    bounds = None if ranges is None else ranges.get(samples.kind)
    if bounds is None and samples.kind in ("uint16", "scaled"):
        bounds = (0.0, _WHITE)
    found = _levels(samples.colour) if bounds is None else levels(samples.colour, bounds)
    if samples.inverted:
        found = 255 - found
    if samples.clear is not None:
        found[samples.clear] = 255
    image = Image.fromarray(found).convert("RGB")
    if samples.alpha is None:
        return image
    # Files of 12 bits in 16 may hold an alpha of 12 bits, too: read over 16, all would be nearly transparent.
    top = bounds[1] if bounds is not None and samples.alpha.max() <= bounds[1] else _WHITE
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=Image.fromarray(levels(samples.alpha, (0.0, top))))
    return white


def to_rgb(image: Image.Image) -> Image.Image:
    """An image of any mode of 8 bits or fewer as RGB; transparency is composited onto white. The input is not changed.

    Raises :class:`ImageError` on a mode without a way to RGB (CIE Lab).
    """
    if image.has_transparency_data:
        return _onto_white(image)
    if image.mode == "RGB":
        return image
    if image.mode == "LAB":
        raise ImageError("an image in CIE Lab colours (LAB), which cannot be read: save it as RGB")
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

"""Shorthands of the decoder's tests: ramps, a noise and photos as pixels, and outcomes as arrays or reasons."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.data.images import noise
from tests.data.preparing import photo
from tl_kit.errors import ImageError
from tl_kit.images.decode import decode

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)
RAMP16 = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)  # 0 to 65535
RGB = noise(0, height=16, width=16)
ALPHA = noise(1, height=16, width=16)[..., 0]

SHADES = np.array(photo(64, 48).convert("L"))
PICTURE = np.array(photo(64, 48, seed=3))


def pixels(source) -> np.ndarray:
    image = decode(source)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def grey(levels: np.ndarray) -> np.ndarray:
    return np.repeat(levels[..., None], 3, axis=2).astype(int)


def reason(source, **options) -> str:
    with pytest.raises(ImageError) as caught:
        decode(source, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def outcome(source, **options) -> Image.Image | str:
    try:
        return decode(source, **options)
    except ImageError as error:
        return str(error)

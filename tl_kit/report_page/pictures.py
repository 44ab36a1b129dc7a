"""Pictures of the report: thumbnails and maps as JPEGs in data URIs, within a limit of bytes."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tl_kit.config import ReportLimits

__all__ = ["Album", "blended"]


class Album:
    """Makes thumbnails until the report has as many bytes of them as it may; ``left`` counts the others."""

    def __init__(self, limits: ReportLimits) -> None:
        self._limits = limits
        self._bytes = 0
        self.left = 0

    def add(self, image: Image.Image) -> str | None:
        """The data URI of a thumbnail; None once the limit is reached.

        It is made of the pixels alone: a JPEG's EXIF, comments and profiles are not in it.
        """
        limits = self._limits
        bare = Image.fromarray(np.asarray(image.convert("RGB")))
        bare.thumbnail((limits.side, limits.side), Image.Resampling.LANCZOS)
        file = io.BytesIO()
        bare.save(file, "JPEG", quality=limits.quality, optimize=True)
        text = f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
        if self._bytes + len(text) > limits.image_bytes:
            self.left += 1
            return None
        self._bytes += len(text)
        return text


def blended(pixels: NDArray[np.uint8], places: NDArray[np.float32], *, strength: float) -> Image.Image:
    """An image (h, w, 3) under its class activation map (h, w) in 0..1: the higher, the more colour covers it."""
    from matplotlib import colormaps

    colours = colormaps["turbo"](places)[..., :3] * 255
    cover = (strength * places)[..., None]
    return Image.fromarray(np.rint(pixels * (1 - cover) + colours * cover).astype(np.uint8))

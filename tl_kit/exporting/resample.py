"""Pillow's antialiased resize and the crop after it, as matrix products of whole numbers that any runtime computes.

Pillow resizes columns, then rows (from version 13 on rows first where an image loses far more of them). Each time it
weighs 8-bit samples by whole numbers of 22 bits, and rounds to 8 bits. Such products fit into float32 without rounding
if the weights are cut into a high and a low part. So the pixels are Pillow's, bit for bit, for images of any size in
one graph: only the matrices' entries depend on the size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from tl_kit.images.geometry import Geometry

__all__ = ["KERNELS", "Views", "pillow_may_begin_with_rows"]

_BITS = 22  # of a weight of 1 in Pillow
_LOW_BITS = 8  # 256 samples weighed by the low part, and all by the high one, stay below 2^24


def _triangle(distance: Tensor) -> Tensor:
    return (1 - distance.abs()).clamp(min=0)


def _cubic(distance: Tensor) -> Tensor:
    """Keys' convolution kernel with a = -0.5."""
    x = distance.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


KERNELS: Mapping[Image.Resampling, tuple[float, Callable[[Tensor], Tensor]]] = {
    Image.Resampling.BILINEAR: (1.0, _triangle),
    Image.Resampling.BICUBIC: (2.0, _cubic),
}
"""Radius in pixels, and the kernel itself, of the resizes that the graph knows."""


class Views(nn.Module):
    """Crops of images after a resize: uint8 (n, 3, h, w) -> whole numbers in float32 (n, crops, 3, *size).

    ``places``: of each crop the share of the free rows above it and of the free columns on its left, and True for its
    mirror image. An image that is longer than ``most_aspect`` times its width gives its middle.
    """

    def __init__(
        self,
        geometry: Geometry,
        size: tuple[int, int],
        most_aspect: float,
        places: Sequence[tuple[float, float, bool]] = ((0.5, 0.5, False),),
    ) -> None:
        super().__init__()
        self.geometry = geometry
        self.size = size
        self.most_aspect = most_aspect
        self.places = tuple(places)

    def forward(self, images: Tensor) -> Tensor:
        """Weights are computed in float64, as Pillow does."""
        sides = [torch.full((), images.shape[axis], dtype=torch.float64) for axis in (2, 3)]
        used = [self._middle(side, torch.minimum(*sides)) for side in sides]
        aims = self._resized(*(length for _, length in used))
        pixels, found = images.float(), []
        (height, width), (h, w) = (length for _, length in used), aims
        rows_first = (h < height) & (height - h > 2 * (width - w))
        for above, before, mirrored in self.places:
            shown: list[Tensor] = []
            rows, columns = (
                self._weights(images.shape[axis + 2], *used[axis], aims[axis], self.size[axis], share, shown)
                for axis, share in ((0, above), (1, before))
            )
            crop = _in_order(rows_first, pixels, rows, columns)
            if self._pads:
                fill = torch.tensor(self.geometry.fill, dtype=torch.float32).view(3, 1, 1)
                crop = torch.where(shown[0][:, None] & shown[1], crop, fill)
            found.append(crop.flip(-1) if mirrored else crop)
        return torch.stack(found, dim=1)

    @property
    def _pads(self) -> bool:
        """True where a resized image may be smaller than the crop."""
        aim = self.geometry.aim
        least = (aim, aim) if isinstance(aim, int) else aim
        return bool(self.geometry.longest) or any(a < wanted for a, wanted in zip(least, self.size, strict=True))

    def _middle(self, side: Tensor, shorter: Tensor) -> tuple[Tensor, Tensor]:
        """Start and length of the part of an edge that is used."""
        if self.most_aspect == float("inf"):
            return torch.zeros_like(side), side
        longest = int(self.most_aspect) * shorter
        return torch.clamp(torch.floor((side - longest) / 2), min=0), torch.minimum(side, longest)

    def _resized(self, height: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
        """Height and width after the resize, as :meth:`Geometry.size` has them."""
        aim, longest = self.geometry.aim, self.geometry.longest
        if isinstance(aim, int):
            shorter = torch.full_like(height, aim)
            longer = torch.floor(aim * torch.maximum(height, width) / torch.minimum(height, width))
            upright = width <= height
            return torch.where(upright, longer, shorter), torch.where(upright, shorter, longer)
        if longest is None:
            return torch.full_like(height, aim[0]), torch.full_like(width, aim[1])
        ratios = height / aim[0], width / aim[1]
        ratio = torch.maximum(*ratios) * longest + torch.minimum(*ratios) * (1.0 - longest)
        return torch.round(height / ratio), torch.round(width / ratio)

    def _weights(
        self, side: int, start: Tensor, length: Tensor, resized: Tensor, crop: int, share: float, shown: list[Tensor]
    ) -> Tensor:
        """High parts of the weights of an edge's pixels in the crop's, and low ones beside them: (side, 2 * crop).

        True is put into ``shown`` (crop,) for the crop's pixels that lie in the image.
        """
        radius, kernel = KERNELS[self.geometry.resample]
        free = resized - crop
        offset = torch.where(free < 0, -torch.floor(-free / 2), torch.round(free * share))
        place = torch.arange(crop, dtype=torch.float64) + offset
        scale = length / resized
        stretch = scale.clamp(min=1)
        centre = (place + 0.5) * scale
        pixel = (torch.arange(side, dtype=torch.float64) - start)[:, None]
        first = torch.floor(centre - radius * stretch + 0.5).clamp(min=0)
        behind = torch.minimum(torch.floor(centre + radius * stretch + 0.5), length)
        weights = kernel((pixel - centre + 0.5) * (1 / stretch)) * ((pixel >= first) & (pixel < behind))
        weights = weights / weights.sum(dim=0)
        within = (place >= 0) & (place < resized)
        shown.append(within)
        if self._pads:
            weights = torch.where(within, weights, torch.zeros_like(weights))
        whole = torch.trunc(weights * 2**_BITS + torch.where(weights < 0, -0.5, 0.5))
        high = torch.floor(whole / 2**_LOW_BITS)
        return torch.cat([high, whole - high * 2**_LOW_BITS], dim=1).float()


@lru_cache(maxsize=1)
def pillow_may_begin_with_rows() -> bool:
    """True if this Pillow resizes rows before columns where an image loses far more rows: tried on one."""
    pixels = np.arange(64 * 8, dtype=np.int64) * 7919 % 251
    image = Image.fromarray(pixels.reshape(64, 8).astype(np.uint8))
    kind = Image.Resampling.BICUBIC
    return image.resize((11, 9), kind).tobytes() == image.resize((8, 9), kind).resize((11, 9), kind).tobytes()


def _in_order(rows_first: Tensor, pixels: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Both passes in Pillow's order; a traced graph gets both orders, and takes one by the image's size."""
    if not pillow_may_begin_with_rows():
        return _columns_first(pixels, rows, columns)
    if torch.compiler.is_compiling():
        found: Tensor = torch.cond(rows_first, _rows_first, _columns_first, (pixels, rows, columns))
        return found
    return (_rows_first if bool(rows_first) else _columns_first)(pixels, rows, columns)


def _columns_first(pixels: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return _rounded(rows.T @ _rounded(pixels @ columns, dim=3), dim=2)


def _rows_first(pixels: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return _rounded(_rounded(rows.T @ pixels, dim=2) @ columns, dim=3)


def _rounded(sums: Tensor, *, dim: int) -> Tensor:
    """Sums of samples times high parts, and times low parts behind them in ``dim``, as 8-bit samples: a shift right."""
    high, low = sums.chunk(2, dim=dim)
    whole = high + torch.floor(low / 2**_LOW_BITS) + 2.0 ** (_BITS - _LOW_BITS - 1)
    return torch.floor(whole / 2.0 ** (_BITS - _LOW_BITS)).clamp(0, 255)

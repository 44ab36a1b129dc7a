"""timm's evaluation geometry with Pillow alone: the same pixels, without torchvision's Python code between the steps.

That code, and PyTorch's small operations, give up the interpreter lock some twenty times an image: on many cores the
threads then wait for each other longer than they work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image
from timm.data.transforms import CenterCropOrPad, MaybePILToTensor, ResizeKeepRatio
from torchvision.transforms import CenterCrop, Resize

__all__ = ["Geometry"]


@dataclass(frozen=True)
class Geometry:
    """A resize, and the crop of the middle that follows. All sizes are (height, width), in pixels.

    ``aim`` is what the resize aims at. With ``longest`` None each edge becomes as long as it says; one number is the
    shorter edge. Else the image keeps its shape: with 1 it fits into ``aim``, with 0 it covers it. ``fill`` is the
    colour (r, g, b) around an image that is smaller than the crop.
    """

    aim: tuple[int, int] | int
    longest: float | None
    resample: Image.Resampling
    crop: tuple[int, int]
    fill: tuple[int, ...]

    @classmethod
    def of(cls, steps: Sequence[Any]) -> Geometry | None:
        """The geometry of timm's evaluation transform; None where it has steps that are not known here."""
        resize, crop, *rest = steps
        if [type(step) for step in rest] != [MaybePILToTensor]:
            return None
        resample = Image.Resampling.__members__.get(getattr(getattr(resize, "interpolation", None), "name", ""))
        aim = _aim_of(resize)
        if resample is None or aim is None:
            return None
        longest = resize.longest if isinstance(resize, ResizeKeepRatio) else None
        if type(crop) is CenterCrop:
            return cls(aim, longest, resample, _pair(crop.size), (0, 0, 0))
        if type(crop) is CenterCropOrPad and crop.padding_mode == "constant" and isinstance(crop.fill, (list, tuple)):
            return cls(aim, longest, resample, _pair(crop.size), tuple(crop.fill))
        return None

    def resized(self, image: Image.Image) -> Image.Image:
        """An RGB image after the resize; itself where it has that size already."""
        size = self.size(*image.size)
        return image if size == image.size else image.resize(size, self.resample)

    def cropped(self, image: Image.Image) -> Image.Image:
        """The middle of an RGB image, with a border where it is smaller than the crop."""
        height, width = self.crop
        left, top = _offset(image.width, width), _offset(image.height, height)
        whole = image.width >= width and image.height >= height
        if whole or not any(self.fill):  # Pillow's crop is black outside of the image
            return image.crop((left, top, left + width, top + height))
        canvas = Image.new("RGB", (width, height), self.fill)
        canvas.paste(image, (-left, -top))
        return canvas

    def box(self, width: int, height: int, *, crop: bool) -> tuple[int, int, int, int] | None:
        """(left, top, right, bottom) that is cut out of an image of this size, once resized; None where that is padded.

        Without ``crop``: all of the resized image.
        """
        columns, rows = self.size(width, height)
        if not crop:
            return 0, 0, columns, rows
        left, top = _offset(columns, self.crop[1]), _offset(rows, self.crop[0])
        whole = columns >= self.crop[1] and rows >= self.crop[0]
        return (left, top, left + self.crop[1], top + self.crop[0]) if whole else None

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of the resized image, rounded as torchvision and timm round them."""
        if isinstance(self.aim, int):
            longer = int(self.aim * max(width, height) / min(width, height))
            return (self.aim, longer) if width <= height else (longer, self.aim)
        rows, columns = self.aim
        if self.longest is None:
            return columns, rows
        ratios = height / rows, width / columns
        ratio = max(ratios) * self.longest + min(ratios) * (1.0 - self.longest)
        return round(width / ratio), round(height / ratio)


def _aim_of(resize: Any) -> tuple[int, int] | int | None:
    if type(resize) is Resize and resize.max_size is None:
        return resize.size if isinstance(resize.size, int) else _pair(resize.size)
    if type(resize) is ResizeKeepRatio and not resize.random_scale_prob and not resize.random_aspect_prob:
        return _pair(resize.size)
    return None


def _pair(size: Sequence[int]) -> tuple[int, int]:
    height, width = size
    return int(height), int(width)


def _offset(side: int, crop: int) -> int:
    """Start of the crop, below 0 where the image is smaller. Half a pixel is rounded to even, as in torchvision."""
    return -((crop - side) // 2) if crop > side else round((side - crop) / 2)

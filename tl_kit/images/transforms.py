"""From a decoded image to the tensor that a model sees: one evaluation transform, and normalisation.

Geometry (resize, crop) happens on uint8 images on the CPU; normalisation happens on whole batches, where the model is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from timm.data.config import resolve_model_data_config
from timm.data.transforms_factory import create_transform
from torch import Tensor, nn
from torchvision.transforms.v2 import functional

from tl_kit.images.deep import SampleRanges
from tl_kit.images.geometry import Geometry

_MAX_ASPECT = 20  # of an image whose short edge is resized to the input's: enlarged whole, it could fill the memory
_CARD = ("input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std")

__all__ = ["Preprocessing", "normalize"]


@dataclass(frozen=True)
class Preprocessing:
    """A model's input as timm's model card describes it: size (c, h, w), interpolation, crop, mean and std.

    Two fields that no card has: ``ranges``, the values over which images of more than 8 bits a sample are read, and
    ``decoder`` of plain JPEGs, a name in :data:`tl_kit.images.device_decode.DECODERS`.
    """

    input_size: tuple[int, int, int]
    interpolation: str
    crop_pct: float
    crop_mode: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    ranges: SampleRanges | None = None
    decoder: str = "pillow"

    @classmethod
    def from_model(cls, model: nn.Module) -> Preprocessing:
        """Read the preprocessing that timm resolves from the model's ``pretrained_cfg``."""
        config: Mapping[str, Any] = resolve_model_data_config(model)  # type: ignore[no-untyped-call]
        fields = {name: config[name] for name in _CARD}
        for name in ("input_size", "mean", "std"):
            fields[name] = tuple(fields[name])
        return cls(**fields)

    def card(self) -> dict[str, Any]:
        """The entries of a model card, by timm's names."""
        return {name: getattr(self, name) for name in _CARD}

    @cached_property
    def _steps(self) -> list[Callable[..., object]]:
        steps = create_transform(
            input_size=self.input_size,
            is_training=False,
            use_prefetcher=True,
            interpolation=self.interpolation,
            crop_pct=self.crop_pct,
            crop_mode=self.crop_mode,
            mean=self.mean,
            std=self.std,
        )
        return list(steps.transforms)

    def hidden(self, width: int, height: int) -> float:
        """The share of an image's pixels that a crop of the input's shape, as large as fits, leaves out: 0 to 1."""
        rows, columns = self.input_size[1:]
        return 1 - min(width * rows, height * columns) / max(width * rows, height * columns)

    @property
    def min_side(self) -> int:
        """The side, in pixels, to which the shorter edge of an image is resized before the crop."""
        return int(min(self.input_size[1:]) / self.crop_pct)

    def evaluate(self, image: Image.Image) -> Tensor:
        """timm's evaluation geometry: RGB image -> uint8 tensor (3, h, w) of the input size."""
        picture = self._picture(image, crop=True)
        return self._apply(image, self._steps) if picture is None else _tensor(picture)

    def evaluate_into(self, image: Image.Image, out: NDArray[np.uint8]) -> None:
        """The same, written to ``out`` (3, h, w): without PyTorch, most of whose calls give up the interpreter lock."""
        picture = self._picture(image, crop=True)
        if picture is None:
            out[:] = self._apply(image, self._steps).numpy()
            return
        four = np.frombuffer(picture.tobytes("raw", "RGBX"), np.uint8)  # as Pillow keeps it: half the time of RGB
        np.copyto(out, four.reshape(*out.shape[1:], 4)[..., :3].transpose(2, 0, 1))

    def resize(self, image: Image.Image) -> Tensor:
        """The same without the final crop, and without the border of crop mode "border". uint8 (3, h', w')."""
        picture = self._picture(image, crop=False)
        return self._apply(image, [*self._steps[:-2], self._steps[-1]]) if picture is None else _tensor(picture)

    def whole(self, image: Image.Image, scale: float = 1.0) -> Tensor:
        """The whole image, from which training draws its crops: uint8 (3, h', w').

        Resized as for evaluation, times ``scale``. Crop mode "squash" makes it as square as the input, and crops are
        then taken of the square; so they are under "border", with the border that evaluation puts around the image.
        """
        pixels = self.scaled(scale).resize(image)
        return self.padded(pixels, self.sides(scale)) if self.crop_mode == "border" else pixels

    def sides(self, scale: float = 1.0) -> tuple[int, int]:
        """Height and width that timm's resize aims at, times ``scale``, in pixels."""
        height, width = (round(scale * math.floor(n / self.crop_pct)) for n in self.input_size[1:])
        return height, width

    def scaled(self, scale: float) -> Preprocessing:
        """The same preprocessing with a resize to ``sides(scale)``: its input is as large as what it resizes to."""
        return _scaled(self, scale)

    def padded(self, pixels: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Pixels (3, h', w') padded on all sides where smaller than ``size`` (h, w), by default the input's.

        The odd pixel is at the right and at the bottom, as timm has it; crop mode "border" pads with the mean colour.
        """
        wanted = self.input_size[1:] if size is None else size
        height, width = (max(0, n - m) for n, m in zip(wanted, pixels.shape[1:], strict=True))
        if not height and not width:
            return pixels
        fill = [round(255 * value) if self.crop_mode == "border" else 0 for value in self.mean]
        out: Tensor = functional.pad(pixels, [width // 2, height // 2, (width + 1) // 2, (height + 1) // 2], fill=fill)
        return out

    @cached_property
    def geometry(self) -> Geometry | None:
        """timm's resize and crop; None where its transform has steps that are not known."""
        return Geometry.of(self._steps)

    def _picture(self, image: Image.Image, *, crop: bool) -> Image.Image | None:
        """The image as :class:`Geometry` resizes and crops it; None where timm's own steps must do that."""
        if self.geometry is None or image.mode != "RGB":
            return None
        resized = self.geometry.resized(_limit_aspect(image, self.most_aspect))
        return self.geometry.cropped(resized) if crop else resized

    def _apply(self, image: Image.Image, steps: list[Callable[..., object]]) -> Tensor:
        value: object = _limit_aspect(image, self.most_aspect)
        for step in steps:
            value = step(value)
        if not isinstance(value, Tensor):
            raise TypeError(f"timm's transform ends in {type(value).__name__}, expected a tensor")
        return value

    @property
    def most_aspect(self) -> float:
        """The aspect ratio beyond which the middle of an image is taken.

        For "border" it is that at which timm would make the image 0 pixels wide; "squash" takes every image whole.
        """
        if self.crop_mode == "squash":
            return math.inf
        return 2 * min(self.sides()) - 1 if self.crop_mode == "border" else _MAX_ASPECT


@lru_cache(maxsize=64)
def _scaled(preprocessing: Preprocessing, scale: float) -> Preprocessing:
    size = (preprocessing.input_size[0], *preprocessing.sides(scale))
    return replace(preprocessing, input_size=size, crop_pct=1.0)


def _tensor(image: Image.Image) -> Tensor:
    """An RGB image as uint8 (3, h, w); as torchvision makes it, a pixel's channels stay side by side in memory."""
    return torch.from_numpy(np.array(image).transpose(2, 0, 1))


def _limit_aspect(image: Image.Image, most: float) -> Image.Image:
    """The middle of an image that is longer than ``most`` times its width."""
    width, height = image.size
    if max(width, height) <= most * min(width, height):
        return image
    longest = int(most) * min(width, height)
    left, top = max(0, (width - longest) // 2), max(0, (height - longest) // 2)
    return image.crop((left, top, left + min(width, longest), top + min(height, longest)))


def normalize(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """(x / 255 - mean) / std on a uint8 batch (n, 3, h, w): float32, bit-equal to ToTensor and Normalize."""
    mean, std = (_channels(values, images.device) for values in (preprocessing.mean, preprocessing.std))
    return images.to(torch.float32).div_(255).sub_(mean).div_(std)


@lru_cache(maxsize=64)
def _channels(values: tuple[float, ...], device: torch.device) -> Tensor:
    """(c, 1, 1) on the device: kept, because a GPU would wait for every copy."""
    with torch.inference_mode(False):
        return torch.tensor(values, device=device).view(-1, 1, 1)

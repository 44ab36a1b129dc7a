"""From a decoded image to the tensor that a model sees: one evaluation transform, and normalisation.

Geometry (resize, crop) happens on uint8 images on the CPU; normalisation happens on whole batches, where the model is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from PIL import Image
from timm.data.config import resolve_model_data_config
from timm.data.transforms_factory import create_transform
from torch import Tensor, nn

from tl_kit.images.deep import SampleRanges

_MAX_ASPECT = 20
_CARD = ("input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std")

__all__ = ["Preprocessing", "normalize"]


@dataclass(frozen=True)
class Preprocessing:
    """A model's input as timm's model card describes it: size (c, h, w), interpolation, crop, mean and std.

    ``ranges``, which no card has: the values over which images of more than 8 bits a sample are read.
    """

    input_size: tuple[int, int, int]
    interpolation: str
    crop_pct: float
    crop_mode: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    ranges: SampleRanges | None = None

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

    @property
    def min_side(self) -> int:
        """The side, in pixels, to which the shorter edge of an image is resized before the crop."""
        return int(min(self.input_size[1:]) / self.crop_pct)

    def evaluate(self, image: Image.Image) -> Tensor:
        """timm's evaluation geometry: RGB image -> uint8 tensor (3, h, w) of the input size."""
        return self._apply(image, self._steps)

    def resize(self, image: Image.Image) -> Tensor:
        """The same without the final crop: what training draws its random crops from. uint8 (3, h', w')."""
        return self._apply(image, [*self._steps[:-2], self._steps[-1]])

    @staticmethod
    def _apply(image: Image.Image, steps: list[Callable[..., object]]) -> Tensor:
        value: object = _limit_aspect(image)
        for step in steps:
            value = step(value)
        if not isinstance(value, Tensor):
            raise TypeError(f"timm's transform ends in {type(value).__name__}, expected a tensor")
        return value


def _limit_aspect(image: Image.Image) -> Image.Image:
    """The middle of an image longer than ``_MAX_ASPECT`` times its width: enlarged whole, it could fill the memory."""
    width, height = image.size
    longest = _MAX_ASPECT * min(width, height)
    if max(width, height) <= longest:
        return image
    left, top = max(0, (width - longest) // 2), max(0, (height - longest) // 2)
    return image.crop((left, top, left + min(width, longest), top + min(height, longest)))


def normalize(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """(x / 255 - mean) / std on a uint8 batch (n, 3, h, w): float32, bit-equal to ToTensor and Normalize."""
    mean = torch.tensor(preprocessing.mean, device=images.device).view(-1, 1, 1)
    std = torch.tensor(preprocessing.std, device=images.device).view(-1, 1, 1)
    return images.to(torch.float32).div_(255).sub_(mean).div_(std)

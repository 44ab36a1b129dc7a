"""Images at their places in batches that are not full yet: a pause in a stream changes no figure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from tl_kit.images.transforms import Preprocessing
from tl_kit.inference.run_models import Reader

__all__ = ["Placed"]


@dataclass(frozen=True)
class Placed:
    """A reader's images from place ``before`` on of ``total``; copies of its first and last image take the others.

    A network's rounding depends on the number of rows and, on some processors, on a row's place among them. With the
    places filled up, an image gets the same bits whether its neighbours have come or not. ``before`` is less than a
    batch, and so is what is missing at the end.
    """

    reader: Reader
    before: int
    total: int

    @property
    def views(self) -> int:
        return self.reader.views

    def __len__(self) -> int:
        return self.total

    def read(self, start: int, stop: int) -> Mapping[Preprocessing, Tensor]:
        first, last = max(start - self.before, 0), min(stop - self.before, len(self.reader))
        front, back = first + self.before - start, stop - self.before - last
        found = self.reader.read(first, last)
        return {key: _filled(pixels, front, back, self.views) for key, pixels in found.items()}


def _filled(pixels: Tensor, front: int, back: int, views: int) -> Tensor:
    """A batch (n * views, 3, h, w) with copies of its first and last image's views around it."""
    if not front and not back:
        return pixels
    return torch.cat([*[pixels[:views]] * front, pixels, *[pixels[-views:]] * back])

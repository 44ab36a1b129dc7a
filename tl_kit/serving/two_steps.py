"""Prediction in two steps: each image is decoded by itself, and decoded images of many requests run together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tl_kit.images.transforms import Preprocessing
from tl_kit.inference.exported import ExportedModel
from tl_kit.inference.predictor import Predictor

__all__ = ["Decoded", "TwoSteps", "bytes_of", "two_steps"]

Decoded: TypeAlias = Mapping[Preprocessing, Tensor] | NDArray[np.uint8]
"""One decoded image: its views (views, 3, h, w) for each preprocessing, or pixels (h, w, 3) for an exported file."""


_MOST_PIXELS = 2**21  # of an exported file's images that run together


class TwoSteps(Protocol):
    """A classifier that decodes in many threads and runs in one."""

    def decode(self, data: bytes) -> Decoded | str:
        """The image of a file's bytes; the reason where it cannot be decoded."""

    def run(self, images: Sequence[Decoded]) -> NDArray[np.float64]:
        """Probabilities (members, n, classes). Raises CheckpointError for outputs that are not finite."""


def two_steps(classifier: Predictor | ExportedModel) -> TwoSteps:
    """The two steps of an opened classifier."""
    return _OfModels(classifier) if isinstance(classifier, Predictor) else _OfFile(classifier)


def bytes_of(image: Decoded) -> int:
    """The memory of a decoded image."""
    return sum(view.nbytes for view in image.values()) if isinstance(image, Mapping) else image.nbytes


@dataclass(frozen=True)
class _OfModels:
    predictor: Predictor

    def decode(self, data: bytes) -> Decoded | str:
        reader = self.predictor.reader([data])
        pixels = reader.read(0, 1)
        return reader.failures[0] if reader.failures else pixels

    def run(self, images: Sequence[Decoded]) -> NDArray[np.float64]:
        return self.predictor.read_probabilities(_Together(images, self.predictor.crops.views))


@dataclass(frozen=True)
class _Together:
    """Decoded images as a reader's batches."""

    images: Sequence[Decoded]
    views: int

    def __len__(self) -> int:
        return len(self.images)

    def read(self, start: int, stop: int) -> Mapping[Preprocessing, Tensor]:
        some = [image for image in self.images[start:stop] if isinstance(image, Mapping)]
        return {each: torch.cat([image[each] for image in some]) for each in some[0]}


@dataclass(frozen=True)
class _OfFile:
    model: ExportedModel

    def decode(self, data: bytes) -> Decoded | str:
        return self.model.pixels(data)

    def run(self, images: Sequence[Decoded]) -> NDArray[np.float64]:
        found = np.empty((1, len(images), len(self.model.classes)))
        pixels = [image for image in images if isinstance(image, np.ndarray)]
        sizes: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for place, image in enumerate(pixels):
            sizes[image.shape].append(place)
        for (height, width, _), places in sizes.items():
            together = max(1, _MOST_PIXELS // (height * width))
            for start in range(0, len(places), together):
                some = places[start : start + together]
                found[0, some] = self.model.run(np.stack([pixels[place] for place in some]))
        return found

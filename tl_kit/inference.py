"""The only inference loop: images in batches, decoded once, through any number of models.

A model's output for one image does not depend on who asks: training, ``evaluate``, ``ensemble`` and ``predict`` all
come through here, with the same decoder, the same evaluation transform and the same batch size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from tl_kit import metrics
from tl_kit.config import CropConfig
from tl_kit.data.cache import PixelStore
from tl_kit.data.crops import crop_views, decode_side
from tl_kit.data.decode import decode
from tl_kit.data.manifest import Sample
from tl_kit.data.transforms import Preprocessing, normalize
from tl_kit.errors import ImageError
from tl_kit.precision import full_precision
from tl_kit.reporting import SILENT, Reporter
from tl_kit.runtime import Runtime, decode_pool
from tl_kit.zoo.heads import classifier_names

__all__ = [
    "FileReader",
    "Reader",
    "Scorer",
    "Source",
    "StoreReader",
    "forward_rows",
    "model_context",
    "run_models",
    "run_probabilities",
]

Source = Path | bytes | Image.Image
"""What can be decoded: a path, a file's bytes, or a Pillow image."""


class Reader(Protocol):
    """Where batches come from: ``read(start, stop)`` gives uint8 batches (n * views, 3, h, w), one a preprocessing.

    The views of an image stand side by side.
    """

    @property
    def views(self) -> int: ...

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int) -> Mapping[Preprocessing, Tensor]: ...


@dataclass(frozen=True)
class StoreReader:
    """Reads samples from a run's pixel store, as the evaluation transform leaves them."""

    store: PixelStore
    samples: Sequence[Sample]
    views: int = field(default=1, init=False)

    def __len__(self) -> int:
        return len(self.samples)

    def read(self, start: int, stop: int) -> Mapping[Preprocessing, Tensor]:
        pixels = self.store.get(self.samples[start:stop], crop=True)
        return {self.store.preprocessing: torch.stack(pixels)}


@dataclass(frozen=True)
class FileReader:
    """Decodes each source once for all preprocessings, and takes the crops of it.

    A source that cannot be decoded is noted in ``failures`` (index -> reason); its pixels are zero, and whoever reads
    the result must drop that row.
    """

    sources: Sequence[Source]
    preprocessings: Sequence[Preprocessing]
    crops: CropConfig = CropConfig()
    failures: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def views(self) -> int:
        return self.crops.views

    def read(self, start: int, stop: int) -> Mapping[Preprocessing, Tensor]:
        rows = list(decode_pool().map(self._views, self.sources[start:stop]))
        for index, row in enumerate(rows, start):
            if isinstance(row, ImageError):
                self.failures[index] = str(row)
        return {p: torch.cat([self._pixels(row, p) for row in rows]) for p in self.preprocessings}

    def _views(self, source: Source) -> dict[Preprocessing, Tensor] | ImageError:
        decoded: dict[
            int, Image.Image
        ] = {}  # by the side that the decoder may draft to: pixels equal those of one model alone
        views = {}
        try:
            for p in dict.fromkeys(self.preprocessings):
                side = decode_side(p, self.crops)
                if side not in decoded:
                    decoded[side] = decode(source, min_side=side)
                views[p] = crop_views(decoded[side], p, self.crops)
        except ImageError as error:
            return error
        return views

    def _pixels(self, row: dict[Preprocessing, Tensor] | ImageError, preprocessing: Preprocessing) -> Tensor:
        if isinstance(row, ImageError):
            return torch.zeros((self.views, *preprocessing.input_size), dtype=torch.uint8)
        return row[preprocessing]


@dataclass(frozen=True)
class Scorer:
    """A model, how its images are prepared, and where and in which precision it runs."""

    model: nn.Module
    preprocessing: Preprocessing
    runtime: Runtime

    def __call__(self, pixels: Tensor) -> Tensor:
        """uint8 (n, 3, h, w) -> the model's output, float32 on the CPU."""
        with model_context([self.model], self.runtime):
            images = normalize(self.runtime.batch(pixels), self.preprocessing)
            return forward_rows(self.model, images).float().cpu()


def run_models(scorers: Sequence[Scorer], reader: Reader, *, reporter: Reporter = SILENT) -> list[Tensor]:
    """Outputs of every model for every view of ``reader``: float32 on the CPU, (n * views, ...) each, in order."""
    outputs: list[list[Tensor]] = [[] for _ in scorers]
    for batch in _run(scorers, reader, reporter):
        for rows, output in zip(outputs, batch, strict=True):
            rows.append(output)
    return [torch.cat(rows) if rows else torch.empty(0) for rows in outputs]


def run_probabilities(
    scorers: Sequence[Scorer], reader: Reader, *, reporter: Reporter = SILENT
) -> list[NDArray[np.float64]]:
    """Probabilities (n, classes) of every model: each view's softmax in float64, averaged over an image's own views."""
    found: list[list[NDArray[np.float64]]] = [[] for _ in scorers]
    for batch in _run(scorers, reader, reporter):
        for rows, output in zip(found, batch, strict=True):
            views = metrics.softmax(output.numpy())
            rows.append(views.reshape(-1, reader.views, views.shape[-1]).mean(axis=1))
    return [np.concatenate(rows) if rows else np.empty((0, 0)) for rows in found]


def _run(scorers: Sequence[Scorer], reader: Reader, reporter: Reporter) -> Iterator[list[Tensor]]:
    """Every model's outputs for the views of a few images at a time: no batch has more rows than with one view each.

    Models are placed on their runtime's device and put in eval mode; all see the same batches.
    """
    size = min(scorer.runtime.batch_size for scorer in scorers)
    images = max(1, size // reader.views)
    for scorer in scorers:
        scorer.runtime.place(scorer.model).eval()
    for start in range(0, len(reader), images):
        stop = min(start + images, len(reader))
        batch = reader.read(start, stop)
        yield [
            torch.cat([scorer(part) for part in torch.split(batch[scorer.preprocessing], size)]) for scorer in scorers
        ]
        reporter.advance(stop - start)


@contextmanager
def model_context(models: Sequence[nn.Module], runtime: Runtime) -> Iterator[None]:
    """Inference in the runtime's precision, with the models' classifiers in full precision."""
    heads = [model.get_submodule(name) for model in models for name in classifier_names(model)]
    with runtime.inference(), full_precision(heads, runtime.device):
        yield


def forward_rows(model: nn.Module, images: Tensor) -> Tensor:
    """The model's output for a batch (n, ...), n > 0; a batch of one is run as two.

    On a CPU, torch multiplies a single row by other kernels than several rows, with other rounding: an image on its own
    would get other digits than the same image among others.
    """
    if len(images) > 1:
        result: Tensor = model(images)
        return result
    pair: Tensor = model(torch.cat([images, images]))
    return pair[:1]

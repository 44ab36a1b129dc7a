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

import torch
from PIL import Image
from torch import Tensor, nn

from tl_kit.data.cache import PixelStore
from tl_kit.data.decode import decode
from tl_kit.data.manifest import Sample
from tl_kit.data.transforms import Preprocessing, normalize
from tl_kit.errors import ImageError
from tl_kit.precision import full_precision
from tl_kit.reporting import SILENT, Reporter
from tl_kit.runtime import Runtime, decode_pool
from tl_kit.zoo.heads import classifier_names

__all__ = ["FileReader", "Reader", "Scorer", "Source", "StoreReader", "forward_rows", "model_context", "run_models"]

Source = Path | bytes | Image.Image
"""What can be decoded: a path, a file's bytes, or a Pillow image."""


class Reader(Protocol):
    """Where batches come from: ``read(start, stop)`` gives uint8 batches (n, 3, h, w), one for each preprocessing."""

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int) -> Mapping[Preprocessing, Tensor]: ...


@dataclass(frozen=True)
class StoreReader:
    """Reads samples from a run's pixel store, as the evaluation transform leaves them."""

    store: PixelStore
    samples: Sequence[Sample]

    def __len__(self) -> int:
        return len(self.samples)

    def read(self, start: int, stop: int) -> Mapping[Preprocessing, Tensor]:
        pixels = self.store.get(self.samples[start:stop], crop=True)
        return {self.store.preprocessing: torch.stack(pixels)}


@dataclass(frozen=True)
class FileReader:
    """Decodes each source once for all preprocessings.

    A source that cannot be decoded is noted in ``failures`` (index -> reason); its pixels are zero, and whoever reads
    the result must drop that row.
    """

    sources: Sequence[Source]
    preprocessings: Sequence[Preprocessing]
    failures: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.sources)

    def read(self, start: int, stop: int) -> Mapping[Preprocessing, Tensor]:
        rows = list(decode_pool().map(self._views, self.sources[start:stop]))
        for index, row in enumerate(rows, start):
            if isinstance(row, ImageError):
                self.failures[index] = str(row)
        return {p: torch.stack([self._pixels(row, p) for row in rows]) for p in self.preprocessings}

    def _views(self, source: Source) -> dict[Preprocessing, Tensor] | ImageError:
        decoded: dict[
            int, Image.Image
        ] = {}  # by the side that the decoder may draft to: pixels equal those of one model alone
        views = {}
        try:
            for p in dict.fromkeys(self.preprocessings):
                if p.min_side not in decoded:
                    decoded[p.min_side] = decode(source, min_side=p.min_side)
                views[p] = p.evaluate(decoded[p.min_side])
        except ImageError as error:
            return error
        return views

    @staticmethod
    def _pixels(row: dict[Preprocessing, Tensor] | ImageError, preprocessing: Preprocessing) -> Tensor:
        if isinstance(row, ImageError):
            return torch.zeros(preprocessing.input_size, dtype=torch.uint8)
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
    """Outputs of every model for every image of ``reader``: float32 on the CPU, (n, ...) each, in order.

    Models are placed on their runtime's device and put in eval mode; all see the same batches.
    """
    outputs: list[list[Tensor]] = [[] for _ in scorers]
    size = min(scorer.runtime.batch_size for scorer in scorers)
    for scorer in scorers:
        scorer.runtime.place(scorer.model).eval()
    for start in range(0, len(reader), size):
        stop = min(start + size, len(reader))
        batch = reader.read(start, stop)
        for scorer, rows in zip(scorers, outputs, strict=True):
            rows.append(scorer(batch[scorer.preprocessing]))
        reporter.advance(stop - start)
    return [torch.cat(rows) if rows else torch.empty(0) for rows in outputs]


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

"""The inference loop: images are decoded once and run in batches through any number of models.

Training, ``evaluate``, ``ensemble`` and ``predict`` all use this loop, with the same decoder, the same evaluation
transform and the same batch size. So a model's output for an image is the same in all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from tl_kit import metrics
from tl_kit.config import CropConfig, DecodeConfig
from tl_kit.data.manifest import Sample
from tl_kit.data.pixel_store import PixelStore
from tl_kit.errors import ImageError, NonFiniteError
from tl_kit.images.crops import decode_side, write_views
from tl_kit.images.decode import decode_as, decode_pool, in_few, read_file, read_sample
from tl_kit.images.deep import Deep, SampleRanges
from tl_kit.images.device_decode import decode_on_device
from tl_kit.images.transforms import Preprocessing, normalize
from tl_kit.inference.mc_dropout import McDropout, image_keys
from tl_kit.machine.forks import unforked
from tl_kit.machine.forward import forward_rows
from tl_kit.machine.memory import trim_memory
from tl_kit.machine.precision import full_precision
from tl_kit.machine.prefetch import prefetched
from tl_kit.machine.runtime import Runtime, available_cores
from tl_kit.reporting import SILENT, Reporter, tell
from tl_kit.zoo.heads import classifier_names

__all__ = [
    "Attempt",
    "FileReader",
    "Pass",
    "Reader",
    "Scorer",
    "Source",
    "StoreReader",
    "model_context",
    "run_models",
    "run_probabilities",
]

Source = Path | bytes | Image.Image | NDArray[np.uint8]
"""Sources that can be decoded: a path, a file's bytes, a Pillow image, or pixels (h, w), (h, w, 3) or (h, w, 4)."""

Attempt = Source | ImageError
"""A source, or in its place the reason why an image could not be had."""

# A preprocessing, the side to decode at for it, and the place of one image's views: (views, 3, h, w).
_Place = tuple[Preprocessing, int, NDArray[np.uint8]]


class Reader(Protocol):
    """Source of batches: ``read(start, stop)`` gives uint8 (n * views, 3, h, w), one batch for each preprocessing.

    The views of an image are adjacent rows.
    """

    @property
    def views(self) -> int: ...

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int) -> Mapping[Preprocessing, Tensor]: ...


@dataclass(frozen=True)
class StoreReader:
    """Reads samples from a run's pixel store, after the evaluation transform."""

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
    """Decodes each source once for all preprocessings that decode it in the same way, and crops it.

    ``digests``: empty, or each path's SHA-256 from the scan; a file that has changed since then counts as undecodable.
    ``deep`` records the sources with more than 8 bits a sample (index -> facts). ``failures`` records sources that
    cannot be decoded (index -> reason); their pixels are zero, and the caller must drop these rows. ``device``: a GPU
    that decodes plain JPEGs for the preprocessings that ask for it, and keeps their pixels.
    """

    sources: Sequence[Attempt]
    preprocessings: Sequence[Preprocessing]
    crops: CropConfig = CropConfig()
    limits: DecodeConfig = DecodeConfig()
    digests: Sequence[str] = ()
    failures: dict[int, str] = field(default_factory=dict)
    deep: dict[int, Deep] = field(default_factory=dict)
    device: torch.device | None = None

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def views(self) -> int:
        return self.crops.views

    def read(self, start: int, stop: int) -> Mapping[Preprocessing, Tensor]:
        shape = (stop - start, self.views)
        there = self._decoded_there(start, stop)
        pixels = {p: torch.empty((*shape, *p.input_size), dtype=torch.uint8) for p in self.preprocessings}
        places = [(p, decode_side(p, self.crops), batch.numpy(), there.get(p)) for p, batch in pixels.items()]
        bad: dict[int, str] = {}
        todo = iter(range(start, stop))  # each thread takes the next image: a task for each would cost more

        def work(_thread: int) -> None:
            for index in todo:
                row = index - start
                wanted = [(p, side, place[row]) for p, side, place, done in places if done is None or done[row] is None]
                reason = self._read(index, wanted) if wanted else None
                if reason is not None:
                    bad[index] = reason

        try:
            if stop - start == 1:
                work(0)  # another thread would only be waited for
            else:
                list(decode_pool().map(work, range(min(stop - start, available_cores()))))
        finally:
            list(todo)  # where the user interrupts, the threads take no more
        self.failures.update(sorted(bad.items()))
        return {p: _joined(batch.flatten(0, 1), there.get(p, ())) for p, batch in pixels.items()}

    def _decoded_there(self, start: int, stop: int) -> dict[Preprocessing, list[Tensor | None]]:
        """Each image's view (3, h, w) on the device, for the preprocessings whose decoder is there; None: Pillow's."""
        asked = [p for p in self.preprocessings if p.decoder == "nvjpeg"]
        if self.device is None or not asked or self.crops != CropConfig():
            return {}
        files = list(in_few(self._file, range(start, stop)))
        return {p: decode_on_device(files, p, crop=True, device=self.device, limits=self.limits) for p in asked}

    def _file(self, index: int) -> bytes | None:
        """A file's bytes; None for other sources, and where there is a fault, which Pillow's way finds again."""
        source = self.sources[index]
        if isinstance(source, bytes):
            return source
        if isinstance(source, Path):
            with suppress(ImageError, MemoryError):
                if self.digests:
                    return read_sample(source, self.digests[index], self.limits)
                return read_file(source, self.limits)
        return None

    def _read(self, index: int, places: Sequence[_Place]) -> str | None:
        """Write an image's views to their places. Where it cannot be decoded: write zeros, and return the reason."""
        try:
            self._write_views(index, places)
        except ImageError as error:
            reason = str(error)
        except MemoryError:
            reason = "too large: not enough memory for it"
        else:
            return None
        for *_, place in places:
            place[:] = 0
        return reason

    def _write_views(self, index: int, places: Sequence[_Place]) -> None:
        # the key is the side that the decoder may draft to, and the ranges: pixels equal those for a single model
        decoded: dict[tuple[int, SampleRanges | None], Image.Image] = {}
        shallow = False
        given = self.sources[index]
        if isinstance(given, ImageError):
            raise given
        source = Image.fromarray(given) if isinstance(given, np.ndarray) else given
        if self.digests and isinstance(source, Path):
            source = read_sample(source, self.digests[index], self.limits)
        for p, side, place in places:
            key = (side, None if shallow else p.ranges)
            if key not in decoded:
                decoded[key], deep = decode_as(source, min_side=side, config=self.limits, ranges=p.ranges)
                if deep is None and not shallow:
                    shallow, decoded[side, None] = True, decoded[key]
                elif deep is not None and (deep.outside or index not in self.deep):
                    self.deep[index] = deep
            write_views(decoded[key], p, place, self.crops)


def _joined(batch: Tensor, there: Sequence[Tensor | None]) -> Tensor:
    """A batch (n, 3, h, w), with the rows that are on a device already: all of it is there then."""
    rows = [row for row, view in enumerate(there) if view is not None]
    views = [view for view in there if view is not None]
    if not rows:
        return batch
    together = torch.stack(views)
    if len(rows) == len(batch):
        return together
    found = batch.to(together.device)
    found[torch.tensor(rows, device=found.device)] = together
    return found


class Pass(Protocol):
    """A pass of a batch through a network, for one model or for several that share it.

    ``prepare`` is called before the first batch, and may be called again; ``release`` may free memory.
    """

    @property
    def preprocessing(self) -> Preprocessing: ...

    @property
    def runtime(self) -> Runtime: ...

    def prepare(self) -> None: ...

    def release(self) -> None: ...

    def __call__(self, pixels: Tensor) -> Tensor:
        """uint8 (n, 3, h, w) -> outputs (n, ..., classes), float32 on the CPU."""


@dataclass(frozen=True)
class Scorer:
    """A model with its preprocessing, its runtime (device and precision) and, if asked for, active dropout."""

    model: nn.Module
    preprocessing: Preprocessing
    runtime: Runtime
    dropout: McDropout | None = None

    def prepare(self) -> None:
        """Place the model on its runtime's device, in eval mode."""
        self.runtime.place(self.model).eval()

    def release(self) -> None:
        """Do nothing: the model stays in memory."""

    def __call__(self, pixels: Tensor) -> Tensor:
        """uint8 (n, 3, h, w) -> the model's output on the CPU: float32, or float64 for several passes with dropout."""
        with model_context([self.model], self.runtime):
            images = normalize(self.runtime.batch(pixels), self.preprocessing)
            if self.dropout is not None:
                return self.dropout(self.model, images, image_keys(pixels.cpu()))
            return forward_rows(self.model, images, rows=self.runtime.rows).float().cpu()


def run_models(
    passes: Sequence[Pass], reader: Reader, *, pixel_bytes: int = 0, reporter: Reporter = SILENT
) -> list[Tensor]:
    """Outputs of every pass for every view of ``reader``: float32 on the CPU, (n * views, ...) each, in order.

    Several passes take turns as in :func:`run_probabilities`.
    """
    outputs: list[list[Tensor]] = [[] for _ in passes]
    for index, output in _run(passes, reader, reporter, pixel_bytes):
        outputs[index].append(output)
    return [torch.cat(rows) if rows else torch.empty(0) for rows in outputs]


def run_probabilities(
    passes: Sequence[Pass], reader: Reader, *, pixel_bytes: int = 0, reporter: Reporter = SILENT
) -> list[NDArray[np.float64]]:
    """Probabilities (n, ..., classes) of every pass: each view's softmax in float64, averaged over an image's views.

    Several passes take turns, each on as many decoded images as fit into ``pixel_bytes``, but at least one batch.
    Raises NonFiniteError for outputs that are not finite.
    """
    found: list[list[NDArray[np.float64]]] = [[] for _ in passes]
    for index, output in _run(passes, reader, reporter, pixel_bytes):
        if not bool(torch.isfinite(output).all()):
            raise NonFiniteError("a model's outputs are not finite, in fp32 either")
        views = metrics.softmax(output.numpy())
        found[index].append(views.reshape(-1, reader.views, *views.shape[1:]).mean(axis=1))
    return [np.concatenate(rows) if rows else np.empty((0, 0)) for rows in found]


def _run(passes: Sequence[Pass], reader: Reader, reporter: Reporter, pixel_bytes: int) -> Iterator[tuple[int, Tensor]]:
    """The index of a pass and its outputs for the views of a few images at a time; for each pass in the images' order.

    No batch has more rows than it would have with one view per image. All passes see the same batches, decoded once.
    """
    size = min(each.runtime.batch_size for each in passes)
    several = len(passes) > 1
    if not several:
        with unforked():
            passes[0].prepare()
    per_batch = max(1, size // reader.views)
    # On a CPU the blocks of another pass have other sizes. For a few images trimming would not pay.
    compact = several and len(reader) > per_batch and not passes[0].runtime.on_gpu
    ahead = passes[0].runtime.on_gpu  # which leaves the CPU free to read
    for chunk, images in _chunks(reader, per_batch, pixel_bytes if several else 0, ahead=ahead):
        turn, turns = 0, len(passes) * len(chunk)
        for index, each in enumerate(passes):
            if compact:
                trim_memory()  # before weights are loaded: weights between free blocks would fragment them
            if several:
                with unforked():
                    each.prepare()
            for batch in chunk:
                with unforked():
                    output = torch.cat([each(part) for part in torch.split(batch[each.preprocessing], size)])
                yield index, output
                tell(reporter)
                reporter.advance(images * (turn + 1) // turns - images * turn // turns)
                turn += 1
            if several:
                with unforked():
                    each.release()


def _chunks(
    reader: Reader, images: int, pixel_bytes: int, *, ahead: bool
) -> Iterator[tuple[list[Mapping[Preprocessing, Tensor]], int]]:
    """Chunks of batches of a given size, as many as fit into ``pixel_bytes`` but at least one, with their images.

    ``ahead``: the next batches are read while the caller works on a chunk.
    """

    @unforked()
    def read(start: int) -> Mapping[Preprocessing, Tensor]:
        return reader.read(start, min(start + images, len(reader)))

    chunk: list[Mapping[Preprocessing, Tensor]] = []
    held = first = 0
    starts = range(0, len(reader), images)
    for start, batch in zip(starts, prefetched(read, starts) if ahead else map(read, starts), strict=True):
        stop = min(start + images, len(reader))
        chunk.append(batch)
        held += sum(pixels.nbytes for pixels in chunk[-1].values())
        if held >= pixel_bytes or stop == len(reader):
            yield chunk, stop - first
            chunk.clear()  # in place: otherwise the caller's list would keep its pixels in memory beside the next ones
            held, first = 0, stop


@contextmanager
def model_context(models: Sequence[nn.Module], runtime: Runtime) -> Iterator[None]:
    """Inference in the runtime's precision, with the models' classifiers in full precision."""
    heads = [model.get_submodule(name) for model in models for name in classifier_names(model)]
    with runtime.inference(), full_precision(heads, runtime.device):
        yield

"""The pixel store: every image is read and decoded once, resized to what the run needs, and kept as uint8."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from tl_kit.config import DecodeConfig, StoreConfig
from tl_kit.data.manifest import Exclusion, Sample
from tl_kit.errors import ImageError
from tl_kit.images.decode import CHANGED, decode, in_few, in_pool, read_sample
from tl_kit.images.device_decode import decode_on_device
from tl_kit.images.transforms import Preprocessing
from tl_kit.machine.forks import ForkLock
from tl_kit.machine.memory import free_memory, release_memory
from tl_kit.machine.prefetch import prefetched
from tl_kit.reporting import note

__all__ = ["PixelStore", "read_pixels"]


def read_pixels(
    path: Path,
    preprocessing: Preprocessing,
    *,
    crop: bool,
    scale: float = 1.0,
    config: DecodeConfig = DecodeConfig(),
    digest: str | None = None,
) -> Tensor:
    """Decode one file: uint8 (3, h, w), cropped as for evaluation, or whole and ``scale`` times as large.

    Raises ImageError, also for a file whose bytes do not have the ``digest``.
    """
    source = path if digest is None else read_sample(path, digest, config)
    side = (preprocessing if crop else preprocessing.scaled(scale)).min_side
    image = decode(source, min_side=side, config=config, ranges=preprocessing.ranges)
    return preprocessing.evaluate(image) if crop else preprocessing.whole(image, scale)


class PixelStore:
    """Decoded images of one run, by content digest: a file whose bytes have another one by now is not taken in.

    Training images are kept whole, ``training_scale`` times as large as evaluation resizes them (augmentation draws its
    crops from them), all others as the evaluation transform leaves them. Beyond ``memory_share`` of the free memory,
    images are decoded again when needed. Where less than ``reserve`` is free, whoever took the rest, half of the images
    that are kept are given up, and no more are taken in. ``device``: a GPU that decodes plain JPEGs, where that is the
    preprocessing's decoder; the pixels are kept in the machine's own memory.
    """

    def __init__(
        self,
        preprocessing: Preprocessing,
        config: StoreConfig = StoreConfig(),
        *,
        limits: DecodeConfig = DecodeConfig(),
        device: torch.device | None = None,
    ) -> None:
        self.preprocessing = preprocessing
        self.limits = limits
        self.device = device
        self.scale = config.training_scale
        free = free_memory()
        self.budget = int(free * config.memory_share)
        self.device_share, self.together = config.device_share, config.decoded_together
        self.reserve = min(config.reserve, int(free * config.memory_share))
        self.check_every = config.check_seconds
        self._checked = time.monotonic()
        self.used = 0
        self._pixels: dict[tuple[str, bool], Tensor] = {}
        self._lock = ForkLock()  # batches are made in one thread while another one validates

    def fill(
        self, samples: Sequence[Sample], *, crop: bool, on_image: Callable[[], object] | None = None
    ) -> list[Exclusion]:
        """Decode ``samples``, keep what fits, and return those that cannot be decoded, with the reason.

        What is held already is not decoded again.
        """
        failures = []
        lacking = [sample for sample in samples if (sample.digest, crop) not in self._pixels]
        if on_image is not None:
            for _ in range(len(samples) - len(lacking)):
                on_image()
        for sample, pixels in zip(lacking, self._decode(lacking, crop=crop), strict=True):
            if isinstance(pixels, ImageError):
                failures.append(Exclusion(sample.path, str(pixels)))
            elif (sample.digest, crop) not in self._pixels and self.used + pixels.nbytes <= self.budget:
                self.used += pixels.nbytes
                self._pixels[sample.digest, crop] = pixels
            self._watch()
            if on_image is not None:
                on_image()
        return failures

    def kept(self, digests: Collection[str], *, crop: bool) -> dict[str, Tensor] | None:
        """All images of these digests, sorted by them; None where one is not in memory."""
        found = {digest: self._pixels[digest, crop] for digest in sorted(digests) if (digest, crop) in self._pixels}
        return found if len(found) == len(digests) else None

    def get(self, samples: Sequence[Sample], *, crop: bool) -> list[Tensor]:
        """Pixels of some samples, from memory or from their files. Raises ImageError if a file has gone bad since."""
        self._watch()
        held: dict[str, Tensor | ImageError | None]
        held = {sample.digest: self._pixels.get((sample.digest, crop)) for sample in samples}  # others may shrink it
        missing = list({sample.digest: sample for sample in samples if held[sample.digest] is None}.values())
        held |= zip([sample.digest for sample in missing], self._decode(missing, crop=crop), strict=True)
        found = []
        for sample in samples:
            pixels = held[sample.digest]
            if isinstance(pixels, ImageError):
                reason = CHANGED if str(pixels) == CHANGED else f"{pixels}; {CHANGED}"
                raise ImageError(f"{sample.path}: {reason}")
            assert pixels is not None
            found.append(pixels)
        return found

    def _watch(self) -> None:
        """Look at the free memory every so often, and shrink where it is short."""
        if time.monotonic() - self._checked < self.check_every:
            return
        with self._lock:
            if self._pixels and free_memory() < self.reserve:
                self.shrink()
            self._checked = time.monotonic()

    def shrink(self) -> None:
        """Give up half of the images, those decoded last, and take no more in: they are decoded again when needed."""
        before = len(self._pixels)
        for key in list(self._pixels)[before // 2 :]:
            self.used -= self._pixels.pop(key).nbytes
        self.budget = self.used
        release_memory()
        note(f"memory is short: of {before:,} decoded images {len(self._pixels):,} are kept, the others decoded again")

    def counts(self) -> dict[bool, int]:
        """Images that are kept, by whether they are cropped as for evaluation."""
        kinds = [crop for _, crop in self._pixels]
        return {crop: kinds.count(crop) for crop in (False, True)}

    def mean_bytes(self, *, crop: bool) -> float:
        """Mean bytes of an image that is kept in this form; 0 without any."""
        sizes = [pixels.nbytes for (_, kind), pixels in self._pixels.items() if kind == crop]
        return sum(sizes) / len(sizes) if sizes else 0.0

    def _decode(self, samples: Sequence[Sample], *, crop: bool) -> Iterator[Tensor | ImageError]:
        if self.device is not None and self.preprocessing.decoder == "nvjpeg":
            return self._decode_on_device(samples, crop=crop)
        return in_pool(partial(self._read, crop=crop), samples)

    def _decode_on_device(self, samples: Sequence[Sample], *, crop: bool) -> Iterator[Tensor | ImageError]:
        """The next files are read while the device works; what it leaves is decoded by Pillow."""
        assert self.device is not None
        parts = [samples[start : start + self.together] for start in range(0, len(samples), self.together)]
        for part, files in zip(parts, prefetched(self._files, parts), strict=True):
            views = decode_on_device(
                files, self.preprocessing, crop=crop, scale=self.scale, device=self.device, limits=self.limits
            )
            left = [sample for sample, view in zip(part, views, strict=True) if view is None]
            others = in_pool(partial(self._read, crop=crop), left)
            yield from (next(others) if view is None else view.cpu() for view in views)

    def _files(self, samples: Sequence[Sample]) -> list[bytes | None]:
        return list(in_few(self._file, samples))

    def _file(self, sample: Sample) -> bytes | None:
        """None where there is a fault, which Pillow's way finds again and names."""
        with suppress(ImageError, MemoryError):
            return read_sample(sample.path, sample.digest, self.limits)
        return None

    def _read(self, sample: Sample, *, crop: bool) -> Tensor | ImageError:
        try:
            return read_pixels(
                sample.path,
                self.preprocessing,
                crop=crop,
                scale=self.scale,
                config=self.limits,
                digest=sample.digest,
            )
        except ImageError as error:
            return error
        except MemoryError:
            return ImageError("too large: not enough memory for it")

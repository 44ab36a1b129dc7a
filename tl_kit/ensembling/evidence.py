"""Evidence: the input of the rules that make new weights (members, their validation predictions, images)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tl_kit.combining.canonical_order import stratified_folds
from tl_kit.config import EnsembleConfig, StoreConfig
from tl_kit.data.manifest import Manifest, Sample
from tl_kit.errors import CheckpointError
from tl_kit.images.transforms import Preprocessing
from tl_kit.inference.predictor import Predictor
from tl_kit.inference.run_models import FileReader
from tl_kit.machine.memory import free_memory
from tl_kit.reporting import Reporter
from tl_kit.storage.checkpoint import WEIGHTS
from tl_kit.untrusted import sha256

__all__ = ["Evidence", "KeptReader"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Evidence:
    """``stack`` (m, n, k): the members' probabilities of the ``val`` images, with ``labels`` (n,)."""

    predictor: Predictor
    manifest: Manifest
    val: Sequence[Sample]
    stack: NDArray[np.float64]
    labels: NDArray[np.int64]
    config: EnsembleConfig
    reporter: Reporter

    @cached_property
    def digests(self) -> tuple[str, ...]:
        """SHA-256 of each member's weights file: equal for copies."""
        return tuple(sha256(member.path / WEIGHTS, error=CheckpointError) for member in self.predictor.members)

    @cached_property
    def order(self) -> tuple[int, ...]:
        """The members' numbers in an order that does not depend on the order on the command line."""
        return tuple(sorted(range(len(self.digests)), key=self.digests.__getitem__))

    @property
    def ingredients(self) -> list[dict[str, str]]:
        """The members' entries in the record of a derived member, in the order given."""
        paths = [str(member.path) for member in self.predictor.members]
        return [{"checkpoint": p, "sha256": digest} for p, digest in zip(paths, self.digests, strict=True)]

    @cached_property
    def folds(self) -> NDArray[np.int64]:
        """The fold of each validation image (n,)."""
        return stratified_folds(self.labels, self.config.fit.folds, seed=self.config.seed)

    @cached_property
    def train(self) -> tuple[Sample, ...]:
        """Training images without duplicates and images to score on, sorted by content, so that classes are mixed."""
        scored = {sample.digest for split in ("val", "test") for sample in self.manifest.split(split)}
        unique = {sample.digest: sample for sample in self.manifest.split("train") if sample.digest not in scored}
        return tuple(unique[digest] for digest in sorted(unique))


class KeptReader:
    """Reads like a FileReader, and caches what it has read up to a share of free memory."""

    def __init__(self, reader: FileReader, config: StoreConfig) -> None:
        self.reader = reader
        self._left = int(free_memory() * config.memory_share)
        self._kept: dict[tuple[int, int], Mapping[Preprocessing, Tensor]] = {}

    def __len__(self) -> int:
        return len(self.reader)

    @property
    def views(self) -> int:
        """The number of crops per image."""
        return self.reader.views

    def read(self, start: int, stop: int) -> Mapping[Preprocessing, Tensor]:
        """uint8 batches (n * views, 3, h, w), one for each preprocessing."""
        if (start, stop) in self._kept:
            return self._kept[start, stop]
        found = self.reader.read(start, stop)
        size = sum(pixels.nbytes for pixels in found.values())
        if size <= self._left:
            self._left -= size
            self._kept[start, stop] = {p: pixels.cpu() for p, pixels in found.items()}  # a GPU has less to spare
        return found

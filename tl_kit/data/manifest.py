"""The Manifest: which images there are, what they show, which split they are in, and what was left out."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tl_kit.errors import DataError
from tl_kit.images.deep import SampleRanges

if TYPE_CHECKING:
    from tl_kit.data.findings import Finding

__all__ = [
    "HIDDEN",
    "OWN",
    "SPLITS",
    "UNMISSED",
    "Exclusion",
    "Manifest",
    "Sample",
    "check_trainable",
    "in_order",
    "labels_of",
]

SPLITS = ("train", "val", "test")
HIDDEN, OWN = "hidden", "written by tl-kit itself"
UNMISSED = (HIDDEN, OWN)
"""Reasons of exclusions that nobody misses: files of operating systems and editors, and folders of earlier runs."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled image.

    ``digest`` is the SHA-256 of the file's bytes, in hex: it identifies the image whatever its name. ``deep``: the kind
    of its samples where they have more than 8 bits. ``near`` is equal for images that were found to be near copies of
    one another (:func:`link_near_copies`).
    """

    path: Path
    label: int
    split: str
    digest: str
    group: str | None = None
    deep: str | None = None
    near: str | None = None


@dataclass(frozen=True, slots=True)
class Exclusion:
    """A file or folder that the scan left out, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Manifest:
    """The result of a scan.

    ``samples`` are ordered by split, label and digest: file names, and the order in which a file system lists
    them, have no influence on training. ``notes`` are sentences on what was decided (splits made, labels merged);
    ``made_splits`` names the splits that the data did not come with; ``faults`` are what is wrong with its layout.
    ``ranges``, once they are measured, are those over which deep images are read.
    """

    root: Path
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    exclusions: tuple[Exclusion, ...] = ()
    notes: tuple[str, ...] = ()
    made_splits: tuple[str, ...] = ()
    faults: tuple[Finding, ...] = ()
    ranges: SampleRanges | None = None

    def split(self, name: str) -> tuple[Sample, ...]:
        """The samples of one split; empty if it has no samples."""
        return tuple(sample for sample in self.samples if sample.split == name)

    def counts(self) -> dict[str, dict[str, int]]:
        """Images per split and class name; splits without images are left out."""
        table: dict[str, dict[str, int]] = {}
        for split in SPLITS:
            labels = Counter(sample.label for sample in self.split(split))
            if labels:
                table[split] = {name: labels[index] for index, name in enumerate(self.classes)}
        return table

    def content_hash(self) -> str:
        """SHA-256 over (digest, class name, split) of all images: equal for equal content, whatever the names."""
        return self._content_hash

    @cached_property
    def _content_hash(self) -> str:
        """Computed once: every file that a run writes of itself holds it."""
        rows = sorted(f"{s.digest}\t{self.classes[s.label]}\t{s.split}" for s in self.samples)
        return hashlib.sha256("\n".join(rows).encode(errors="surrogatepass")).hexdigest()

    def without(self, exclusions: Iterable[Exclusion]) -> Manifest:
        """The same without the images of these paths, which join ``exclusions``. Classes and splits stay as they are.

        Follow it with :func:`check_trainable`: a class may have lost its last image.
        """
        added = tuple(exclusions)
        gone = {exclusion.path for exclusion in added}
        kept = tuple(sample for sample in self.samples if sample.path not in gone)
        return replace(self, samples=kept, exclusions=self.exclusions + added)


def in_order(samples: Iterable[Sample]) -> tuple[Sample, ...]:
    """Samples as a manifest has them: by split, label and digest."""
    return tuple(sorted(samples, key=lambda s: (SPLITS.index(s.split), s.label, s.digest, str(s.path))))


def check_trainable(manifest: Manifest) -> None:
    """Raise :class:`DataError` unless every class has a training image, of two classes or more, and val has images."""
    trained = {sample.label for sample in manifest.split("train")}
    if len(trained) < 2:
        raise DataError(f"{manifest.root}: {len(trained)} of its classes have training images; at least 2 are needed")
    bare = [name for label, name in enumerate(manifest.classes) if label not in trained]
    if bare:
        named = ", ".join(f"'{name}'" for name in bare[:5]) + (f" and {len(bare) - 5} more" if len(bare) > 5 else "")
        raise DataError(f"{manifest.root}: no training image is left of {named}; add images or remove the class")
    if not manifest.split("val"):
        raise DataError(f"{manifest.root}: no validation image; add a val split, or a second image to some class")


def labels_of(samples: tuple[Sample, ...]) -> NDArray[np.int64]:
    """Class indices (n,)."""
    return np.array([sample.label for sample in samples], dtype=np.int64)

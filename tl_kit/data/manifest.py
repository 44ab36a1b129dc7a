"""The Manifest: a data set's images with their labels and splits, and the exclusions."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from tl_kit.errors import DataError
from tl_kit.images.deep import SampleRanges

if TYPE_CHECKING:
    from tl_kit.data.findings import Finding

T = TypeVar("T")

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
    "shown_path",
    "spread",
]

SPLITS = ("train", "val", "test")
HIDDEN, OWN = "hidden", "written by tl-kit itself"
UNMISSED = (HIDDEN, OWN)
"""Reasons of harmless exclusions: files of operating systems and editors, and folders of earlier runs."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled image.

    ``digest`` is the SHA-256 of the file's bytes, in hex, which identifies the image whatever its name. ``deep``: the
    type of its samples if they have more than 8 bits. ``near`` is equal for images that are near copies of each other
    (:func:`link_near_copies`).
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
    """A file or folder that the scan left out, with the reason."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Manifest:
    """The result of a scan.

    ``samples`` are sorted by split, label and digest, so file names and the file system's order have no influence on
    training. ``notes`` are sentences on decisions (splits made, labels merged). ``made_splits`` names the splits that
    the data did not come with. ``faults`` are faults of the layout. ``ranges``, once measured, are the value ranges of
    deep images. ``copied``: files and folders of local copies, each with the path for people of what it is a copy of.
    """

    root: Path
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    exclusions: tuple[Exclusion, ...] = ()
    notes: tuple[str, ...] = ()
    made_splits: tuple[str, ...] = ()
    faults: tuple[Finding, ...] = ()
    ranges: SampleRanges | None = None
    copied: Mapping[Path, Path] = field(default_factory=dict)

    def shown(self, path: Path) -> Path:
        """The path for people: of a file in a local copy, the name that it has in the archive or table."""
        return shown_path(path, self.copied)

    def named(self, exclusions: Iterable[Exclusion]) -> tuple[Exclusion, ...]:
        """The exclusions under their paths for people."""
        return tuple(replace(each, path=self.shown(each.path)) for each in exclusions)

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
        """SHA-256 over (digest, class name, split) of all images: equal for equal content, whatever the file names."""
        return self._content_hash

    @cached_property
    def _content_hash(self) -> str:
        """The cached hash; a run writes it into several files."""
        rows = sorted(f"{s.digest}\t{self.classes[s.label]}\t{s.split}" for s in self.samples)
        return hashlib.sha256("\n".join(rows).encode(errors="surrogatepass")).hexdigest()

    def without(self, exclusions: Iterable[Exclusion]) -> Manifest:
        """A copy without the images of these paths, which join ``exclusions``. Classes and splits do not change.

        Call :func:`check_trainable` afterwards: a class may have lost its last image.
        """
        added = tuple(exclusions)
        gone = {exclusion.path for exclusion in added}
        kept = tuple(sample for sample in self.samples if sample.path not in gone)
        return replace(self, samples=kept, exclusions=self.exclusions + added)


def shown_path(path: Path, copied: Mapping[Path, Path]) -> Path:
    """The path for people of ``path``, whose file or folder may be a copy (:attr:`Manifest.copied`)."""
    path = copied.get(path, path)
    return next((copied[above] / path.relative_to(above) for above in path.parents if above in copied), path)


def in_order(samples: Iterable[Sample]) -> tuple[Sample, ...]:
    """Samples in a manifest's order: by split, label and digest."""
    return tuple(sorted(samples, key=lambda s: (SPLITS.index(s.split), s.label, s.digest, str(s.path))))


def check_trainable(manifest: Manifest, *, validates: bool = True) -> None:
    """Raise :class:`DataError` unless there are two classes, each has a training image, and val has images.

    ``validates``: False where no validation images are needed.
    """
    trained = {sample.label for sample in manifest.split("train")}
    if len(trained) < 2:
        raise DataError(f"{manifest.root}: {len(trained)} of its classes have training images; at least 2 are needed")
    bare = [name for label, name in enumerate(manifest.classes) if label not in trained]
    if bare:
        named = ", ".join(f"'{name}'" for name in bare[:5]) + (f" and {len(bare) - 5} more" if len(bare) > 5 else "")
        raise DataError(f"{manifest.root}: no training image is left of {named}; add images or remove the class")
    if validates and not manifest.split("val"):
        raise DataError(f"{manifest.root}: no validation image; {_why_none(manifest)}")


def _why_none(manifest: Manifest) -> str:
    """The reason why there is no validation image, and the remedy."""
    if "val" not in manifest.made_splits:
        return "none of the val split can be used: see the files that were left out"
    units: dict[int, set[str]] = {}
    several = Counter(sample.label for sample in manifest.split("train"))
    for sample in manifest.split("train"):
        units.setdefault(sample.label, set()).add(sample.group or sample.near or sample.digest)
    if max(several.values(), default=0) < 2:
        named = f"each of the {len(several)} classes has one image ('{manifest.classes[0]}' and so on)"
        return f"{named}, if these are classes: add a val split, or a second image to some class"
    if all(len(found) == 1 for found in units.values()):
        return (
            "the images of each class belong together (one group, or copies of one image), so that none can be set "
            "aside: add a val split, or images of another group"
        )
    return "add a val split, or images or groups that can be separated"


def spread(items: Sequence[T], most: int) -> list[T]:
    """At most ``most`` of the items, at even distances: samples are sorted by class, and all classes are to be seen."""
    count = min(len(items), most)
    return [items[number * len(items) // count] for number in range(count)]


def labels_of(samples: tuple[Sample, ...]) -> NDArray[np.int64]:
    """Class indices (n,)."""
    return np.array([sample.label for sample in samples], dtype=np.int64)

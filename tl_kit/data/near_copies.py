"""Near copies (re-encoded, resized, mirrored images), linked before splits are made so that they share a split."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tl_kit.config import CopiesConfig, DataConfig, DecodeConfig, DoctorConfig
from tl_kit.data.manifest import Sample
from tl_kit.data.ranges import measure_ranges
from tl_kit.data.splits import unit_keys
from tl_kit.errors import ConfigError, ImageError
from tl_kit.images.decode import decode as decode_image
from tl_kit.images.decode import in_few
from tl_kit.images.deep import SampleRanges
from tl_kit.images.perceptual_hash import few_pairs, linked_sets, thumbnail

__all__ = ["link_near_copies"]

_GREY = np.array([0.299, 0.587, 0.114])
_UNCHECKED = "near copies (re-encoded, resized, mirrored) were not looked for among"


def link_near_copies(
    samples: Sequence[Sample], *, config: DataConfig, decode: DecodeConfig, limits: CopiesConfig = CopiesConfig()
) -> tuple[list[Sample], list[str]]:
    """The samples, with equal ``near`` for near copies, linked transitively; and notes about them.

    Every image is decoded to a thumbnail and compared as in the doctor (:func:`few_pairs`). No image is compared if
    there are more than ``config.near_images`` different files, or if the hashes propose too many pairs. The result
    depends on the images' contents alone. Sets that would put more than ``limits.share`` of a class, besides its
    largest group, into one split are not kept together; a note counts them. Raises ConfigError for a negative
    ``near_images``.
    """
    digests = sorted({sample.digest for sample in samples})
    if config.near_images < 0:
        raise ConfigError(f"near_images {config.near_images}: must be at least 0")
    if config.near_images == 0 or len(digests) < 2:
        return list(samples), []
    if len(digests) > config.near_images:
        return list(samples), [f"{_UNCHECKED} {len(digests):,} images (at most {config.near_images:,} are compared)"]
    sets = _alike(samples, digests, decode, limits)
    if sets is None:
        return list(samples), [f"{_UNCHECKED} {len(digests):,} images: too many of them are alike at first sight"]
    if not sets:
        return list(samples), []
    found = _bounded(samples, sets, limits)
    near = {digest: min(each) for each in found.kept for digest in each}
    return [replace(s, near=near.get(s.digest)) for s in samples], found.notes(samples)


@dataclass(frozen=True)
class _Links:
    """Sets of digests of near copies: those that stay together, and those that are too large to stay together."""

    kept: list[frozenset[str]]
    left: list[frozenset[str]]

    def notes(self, samples: Iterable[Sample]) -> list[str]:
        count = Counter(sample.digest for sample in samples)
        kept, left = (sum(count[digest] for each in sets for digest in each) for sets in (self.kept, self.left))
        notes = []
        if kept:
            notes.append(
                f"near copies (re-encoded, resized, mirrored): {kept:,} images in {len(self.kept):,} "
                f"{'set, which stays' if len(self.kept) == 1 else 'sets, each of which stays'} "
                "in one split"
            )
        if left:
            notes.append(
                f"{left:,} images look so much alike that one split would get most of a class: they are spread over "
                "the splits, and scores may be too good; --group-pattern or a group column keeps images together"
            )
        return notes


def _alike(
    samples: Iterable[Sample], digests: Sequence[str], decode: DecodeConfig, limits: CopiesConfig
) -> list[list[str]] | None:
    """Sets of digests of images that look alike, linked transitively; None if too many would have to be compared.

    An image that cannot be decoded, or is blank, is not like any other.
    """
    paths = {sample.digest: sample.path for sample in samples}
    ranges = measure_ranges(list(samples), decode=decode)
    looks = in_few(lambda digest: _grey(paths[digest], decode, ranges), digests)
    shown = [(digest, grey) for digest, grey in zip(digests, looks, strict=True) if grey is not None]
    if len(shown) < 2:
        return []
    pairs = few_pairs(np.stack([grey for _, grey in shown]), most=limits.proposed * len(shown))
    if pairs is None:
        return None
    return [[shown[index][0] for index in each] for each in linked_sets(pairs.first, pairs.second, len(shown))]


def _grey(path: Path, decode: DecodeConfig, ranges: SampleRanges | None) -> NDArray[np.uint8] | None:
    """The thumbnail (32, 32) of a file, or None if it cannot be decoded."""
    try:
        pixels = thumbnail(decode_image(path, min_side=DoctorConfig.min_side, config=decode, ranges=ranges))
    except ImageError:
        return None
    hundredth = pixels.size // 300
    levels = np.partition(pixels.reshape(-1, 3), (hundredth, -1 - hundredth), axis=0)
    if int((levels[-1 - hundredth].astype(int) - levels[hundredth]).max()) < DoctorConfig.empty_levels:
        return None
    found: NDArray[Any] = np.rint(pixels @ _GREY).astype(np.uint8)
    return found


def _bounded(samples: Sequence[Sample], sets: Sequence[Sequence[str]], limits: CopiesConfig) -> _Links:
    """Links between samples: the sets that stay together, each merged with all copies and groups that it touches."""
    keys = unit_keys([s.digest for s in samples], [s.group for s in samples], seed=0)
    unit = dict(zip([s.digest for s in samples], keys, strict=True))
    counts: dict[str, Counter[int]] = defaultdict(Counter)
    for sample, key in zip(samples, keys, strict=True):
        counts[key][sample.label] += 1
    ends = [(digest, str(number)) for number, each in enumerate(sets) for digest in each]
    chains = unit_keys([unit[digest] for digest, _ in ends], [number for _, number in ends], seed=0)
    joined: dict[str, set[str]] = defaultdict(set)
    for (digest, _), chain in zip(ends, chains, strict=True):
        joined[chain].add(digest)
    total = Counter(sample.label for sample in samples)
    links = _Links([], [])
    for digests in joined.values():
        parts = [counts[key] for key in {unit[digest] for digest in digests}]
        (links.kept if _fits(parts, total, limits) else links.left).append(frozenset(digests))
    return links


def _fits(parts: Sequence[Counter[int]], total: Counter[int], limits: CopiesConfig) -> bool:
    """True if groups with these numbers of images per class, put together, leave enough images of every class."""
    return all(
        sum(part[label] for part in parts) - max(part[label] for part in parts)
        <= max(limits.few, limits.share * total[label])
        for label in set().union(*parts)
    )

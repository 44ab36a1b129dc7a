"""Splits for a data set without them: stratified, group-aware, and independent of names and order."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from tl_kit.data.manifest import Sample
from tl_kit.errors import ConfigError

__all__ = ["assign_splits", "keys_of", "unit_keys"]


@dataclass
class _Unit:
    """Images that must stay together: one group, equal content or near copies, linked transitively."""

    key: str
    members: list[int]
    counts: Counter[int]
    split: str = "train"

    @property
    def size(self) -> int:
        return len(self.members)


def assign_splits(
    labels: Sequence[int],
    digests: Sequence[str],
    groups: Sequence[str | None],
    near: Sequence[str | None] | None = None,
    *,
    val_fraction: float,
    test_fraction: float,
    seed: int,
) -> list[str]:
    """The split ("train", "val" or "test") of each image; the sequences have one entry per image.

    Fractions are shares of each class. Images of equal digest, of one group, or of equal ``near`` stay together.
    Subject to that, every class keeps at least one training image; a class of two has one in val; a class of three or
    more has at least one in each split whose fraction is above zero. Units are drawn in the order of SHA-256(seed,
    smallest digest), so the result depends only on the images' contents and the seed: permuting the input permutes the
    result.

    Raises :class:`ConfigError` unless both fractions are at least 0 and their sum is below 1.
    """
    if not (val_fraction >= 0 and test_fraction >= 0 and val_fraction + test_fraction < 1):
        raise ConfigError(
            f"val_fraction {val_fraction} and test_fraction {test_fraction}: each must be at least 0, their sum below 1"
        )
    units = _units(labels, digests, groups, near or [None] * len(labels), seed=seed)
    plan = _Plan(units, fractions={"val": val_fraction, "test": test_fraction})
    by_class: dict[int, list[_Unit]] = defaultdict(list)
    for unit in units:
        for label in unit.counts:
            by_class[label].append(unit)

    def rank(label: int) -> tuple[int, list[tuple[str, int]]]:  # fewest units first, then by content, not by name
        return len(by_class[label]), [(unit.key, unit.counts[label]) for unit in by_class[label]]

    queue = sorted(by_class, key=rank)
    for label in queue:
        plan.give_one_unit(label, by_class[label])
    for label in queue:
        plan.fill(label, by_class[label])
    result = ["train"] * len(labels)
    for unit in units:
        for index in unit.members:
            result[index] = unit.split
    return result


def keys_of(samples: Sequence[Sample], *, seed: int) -> list[str]:
    """:func:`unit_keys` of samples: their digests, groups and near copies."""
    return unit_keys([s.digest for s in samples], [s.group for s in samples], [s.near for s in samples], seed=seed)


def unit_keys(
    digests: Sequence[str], groups: Sequence[str | None], near: Sequence[str | None] | None = None, *, seed: int
) -> list[str]:
    """Each image's unit key, equal for images that must stay together: equal digests or one group, linked transitively.

    ``near`` counts as a second group. Two images have the same key if and only if they belong together. Keys are
    SHA-256(seed, smallest digest), in hex, so they depend on contents and seed alone.
    """
    keys = [""] * len(digests)
    for unit in _units([0] * len(digests), digests, groups, near or [None] * len(digests), seed=seed):
        for index in unit.members:
            keys[index] = unit.key
    return keys


def _units(
    labels: Sequence[int],
    digests: Sequence[str],
    groups: Sequence[str | None],
    near: Sequence[str | None],
    *,
    seed: int,
) -> list[_Unit]:
    """Connected components of "same digest, same group or near copies", in the order of drawing."""
    parent = list(range(len(labels)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    first: dict[tuple[str, str | None], int] = {}
    for index, names in enumerate(zip(digests, groups, near, strict=True)):
        for link in zip(("digest", "group", "near"), names, strict=True):
            if link[1] is not None:
                parent[root(index)] = root(first.setdefault(link, index))
    members: dict[int, list[int]] = defaultdict(list)
    for index in range(len(labels)):
        members[root(index)].append(index)
    units = []
    for indices in members.values():
        smallest = min(digests[index] for index in indices)
        key = hashlib.sha256(f"{seed}\n{smallest}".encode()).hexdigest()
        units.append(_Unit(key, indices, Counter(labels[index] for index in indices)))
    return sorted(units, key=lambda unit: unit.key)


class _Plan:
    """A plan of splits: moves units out of train one at a time, but never the last one of a class."""

    def __init__(self, units: Sequence[_Unit], *, fractions: dict[str, float]) -> None:
        total: Counter[int] = Counter()
        for unit in units:
            total.update(unit.counts)
        self.remaining = Counter(total)
        self.placed = {split: Counter[int]() for split in fractions}
        self.targets = {
            split: {label: max(1, int(count * fraction + 0.5)) for label, count in total.items()}
            for split, fraction in fractions.items()
            if fraction > 0
        }

    def give_one_unit(self, label: int, units: Sequence[_Unit]) -> None:
        """Give a unit to each split that has none of this class: the first that does not overshoot, or the smallest."""
        for split, targets in self.targets.items():
            free = [unit for unit in units if self._is_free(unit)]
            if self.placed[split][label] or not free:
                continue
            fitting = (unit for unit in free if unit.size <= 2 * targets[label])
            self._place(next(fitting, min(free, key=lambda unit: unit.size)), split)

    def fill(self, label: int, units: Sequence[_Unit]) -> None:
        """Give units to the split that lacks most of this class, while that brings it closer to its target."""
        for unit in units:
            lacks = {split: targets[label] - self.placed[split][label] for split, targets in self.targets.items()}
            split = max(lacks, key=lambda name: lacks[name], default=None)
            if split is not None and self._is_free(unit) and 2 * lacks[split] > unit.counts[label]:
                self._place(unit, split)

    def _is_free(self, unit: _Unit) -> bool:
        return unit.split == "train" and all(self.remaining[label] > count for label, count in unit.counts.items())

    def _place(self, unit: _Unit, split: str) -> None:
        unit.split = split
        self.remaining.subtract(unit.counts)
        self.placed[split].update(unit.counts)

"""Findings about images that are alike though their files differ: across splits, across classes, or neither."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tl_kit.config import LikenessConfig
from tl_kit.data.findings import Finding, of_sets
from tl_kit.data.likeness import near_pairs
from tl_kit.data.manifest import Sample

__all__ = ["likenesses", "linked_sets"]

_HOW = "(re-encoded, resized, mirrored, or taken at the same moment)"
_LEAK = f"{{}} images look like one of another split {_HOW}: scores will be too good"
_CONFLICT = f"{{}} images look like one of another class {_HOW}"
_DUPLICATE = f"{{}} images look like another of the same class and split {_HOW}"


def likenesses(
    samples: Sequence[Sample], thumbnails: Sequence[NDArray[Any]], *, config: LikenessConfig
) -> list[Finding]:
    """Samples (n) whose grey thumbnails (n of (32, 32)) are alike; those of equal content count once.

    What is alike in a pair that spans splits, or classes, is a warning; other pairs are worth knowing. A finding's sets
    are what such pairs link: images that belong together.
    """
    distinct = {sample.digest: index for index, sample in enumerate(samples)}
    rows = np.array(list(distinct.values()), dtype=np.int64)
    if len(rows) < 2:
        return []
    pairs = near_pairs(np.stack([thumbnails[row] for row in rows]), config=config)
    first, second = rows[pairs.first], rows[pairs.second]
    labels = np.array([sample.label for sample in samples])
    _, splits = np.unique([sample.split for sample in samples], return_inverse=True)
    conflicts, leaks = labels[first] != labels[second], splits[first] != splits[second]

    def linked(chosen: NDArray[np.bool_]) -> list[list[Sample]]:
        sets = linked_sets(first[chosen], second[chosen], len(samples))
        return [[samples[index] for index in each] for each in sets]

    return [
        *of_sets("warning", "near-split-leak", _LEAK, linked(leaks)),
        *of_sets("warning", "near-label-conflict", _CONFLICT, linked(conflicts)),
        *of_sets("info", "near-duplicate", _DUPLICATE, linked(~conflicts & ~leaks)),
    ]


def linked_sets(first: NDArray[np.int64], second: NDArray[np.int64], size: int) -> list[list[int]]:
    """Connected components of two nodes and more, each in order, the one with the smallest index first."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not len(first):
        return []
    edges = first.astype(np.int32), second.astype(np.int32)  # given others, scipy 1.11 links nothing
    _, component = connected_components(coo_array((np.ones(len(first)), edges), shape=(size, size)), False)
    nodes = np.unique(np.concatenate([first, second]))
    found: dict[int, list[int]] = {}
    for node in nodes.tolist():
        found.setdefault(int(component[node]), []).append(node)
    return list(found.values())

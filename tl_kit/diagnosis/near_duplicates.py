"""Near duplicates: images that look alike although their files differ, across splits, across classes, or neither."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tl_kit.config import LikenessConfig
from tl_kit.data.findings import Finding
from tl_kit.data.manifest import Sample
from tl_kit.diagnosis.split_checks import of_sets
from tl_kit.images.perceptual_hash import linked_sets, near_pairs

__all__ = ["likenesses"]

_HOW = "(re-encoded, resized, mirrored, or taken at the same moment)"
_LEAK = f"{{}} images look like one of another split {_HOW}: scores will be too good"
_CONFLICT = f"{{}} images look like one of another class {_HOW}"
_DUPLICATE = f"{{}} images look like another of the same class and split {_HOW}"


def likenesses(
    samples: Sequence[Sample], thumbnails: Sequence[NDArray[Any]], *, config: LikenessConfig
) -> list[Finding]:
    """Findings on samples (n) whose grey thumbnails (n of (32, 32)) are alike; samples of equal content count once.

    Pairs that span splits or classes give a warning, other pairs a note. A finding's sets are the images that such
    pairs link.
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

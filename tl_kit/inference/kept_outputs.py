"""Kept outputs: what a command has scored once stays in memory, so that its report does not predict it again.

They are known by content: the bytes of the weights, the crops and passes, and the digest of each image. A run keeps its
own outputs, from which its scores were computed; whoever predicts labelled images keeps those.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from tl_kit.config import CropConfig
from tl_kit.data.manifest import Sample
from tl_kit.errors import CheckpointError
from tl_kit.storage.checkpoint import WEIGHTS
from tl_kit.untrusted import sha256

__all__ = ["keep_outputs", "keeping_outputs", "known_outputs"]

_Rows: TypeAlias = dict[str, NDArray[np.float64]]
_MOST = 2**28  # bytes of all kept outputs
_KEPT: ContextVar[dict[Hashable, _Rows] | None] = ContextVar("kept outputs", default=None)


@contextmanager
def keeping_outputs() -> Iterator[None]:
    """Within the block, outputs for labelled images are kept, and :func:`tl_kit.report` uses them."""
    token = _KEPT.set({})
    try:
        yield
    finally:
        _KEPT.reset(token)


def keep_outputs(
    members: Sequence[Path],
    samples: Sequence[Sample],
    stack: NDArray[np.float64],
    *,
    crops: CropConfig = CropConfig(),
    mc_dropout: int = 0,
) -> None:
    """Keep the probabilities (members, n, classes) of n images, by the checkpoints in these folders.

    Outside of :func:`keeping_outputs`, and beyond a limit of bytes, nothing is kept.
    """
    kept = _KEPT.get()
    if kept is None:
        return
    if stack.nbytes + sum(row.nbytes for rows in kept.values() for row in rows.values()) > _MOST:
        return
    rows = kept.setdefault(_key(members, crops, mc_dropout), {})
    rows.update({sample.digest: stack[:, index].copy() for index, sample in enumerate(samples)})


def known_outputs(
    members: Sequence[Path], samples: Sequence[Sample], *, crops: CropConfig, mc_dropout: int
) -> dict[int, NDArray[np.float64]]:
    """The kept probabilities (members, classes) of these images, by index; empty if none were kept."""
    kept = _KEPT.get()
    if not kept:
        return {}
    rows = kept.get(_key(members, crops, mc_dropout), {})
    return {index: rows[sample.digest] for index, sample in enumerate(samples) if sample.digest in rows}


def _key(members: Sequence[Path], crops: CropConfig, mc_dropout: int) -> Hashable:
    digests = [sha256(member / WEIGHTS, error=CheckpointError) for member in members]
    return (*digests, crops, mc_dropout)

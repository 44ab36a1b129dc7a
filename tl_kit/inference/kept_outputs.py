"""Kept outputs: what a command has scored once stays in memory, so that its report does not predict it again.

They are known by content: the bytes of the models and what else decides their outputs, and the digest of each image. A
run keeps its own outputs, from which its scores were computed; whoever predicts labelled images keeps those.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tl_kit.config import CropConfig
from tl_kit.data.manifest import Sample
from tl_kit.errors import CheckpointError
from tl_kit.storage.checkpoint import HELD_OUT_HEAD, WEIGHTS, read_meta, refit_digests
from tl_kit.untrusted import sha256
from tl_kit.zoo.model_card import CONFIG

__all__ = ["keep_outputs", "keeping_outputs", "known_outputs", "outputs_key"]

_MOST = 2**28  # bytes of all kept outputs
_PER_IMAGE = 300  # bytes that an image's digest and its place take beside its outputs
_DECIDE = ("decoder", "ranges")  # entries of a record that change a model's inputs


@dataclass
class _Rows:
    """Arrays (members, n, classes), and for each digest its array and its place in it."""

    places: dict[str, tuple[NDArray[np.float64], int]] = field(default_factory=dict)
    size: int = 0


_KEPT: ContextVar[dict[Hashable, _Rows] | None] = ContextVar("kept outputs", default=None)


@contextmanager
def keeping_outputs() -> Iterator[None]:
    """Within the block, outputs for labelled images are kept, and :func:`tl_kit.report` uses them."""
    token = _KEPT.set({})
    try:
        yield
    finally:
        _KEPT.reset(token)


def outputs_key(
    members: Sequence[Path],
    *,
    classes: Sequence[str],
    precisions: Sequence[str],
    crops: CropConfig = CropConfig(),
    mc_dropout: int = 0,
) -> Hashable | None:
    """Key of the outputs of the checkpoints in these folders, whose columns are ``classes``.

    ``precisions``: of each member, as it is computed. None outside of :func:`keeping_outputs`, where nothing is kept.
    """
    if _KEPT.get() is None:
        return None
    return (*map(_model, members), tuple(classes), tuple(precisions), crops, mc_dropout)


def keep_outputs(key: Hashable | None, samples: Sequence[Sample], stack: NDArray[np.float64]) -> None:
    """Keep the probabilities (members, n, classes) of n images; an image that is kept already stays as it is.

    Beyond a limit of bytes the outputs of the model that came first go.
    """
    kept = _KEPT.get()
    size = stack.nbytes + _PER_IMAGE * len(samples)
    if kept is None or key is None or size > _MOST:
        return
    while kept and size + sum(rows.size for rows in kept.values()) > _MOST:
        del kept[next(iter(kept))]
    rows, own = kept.setdefault(key, _Rows()), stack.copy()
    rows.size += size
    for index, sample in enumerate(samples):
        rows.places.setdefault(sample.digest, (own, index))


def known_outputs(key: Hashable | None, samples: Sequence[Sample]) -> dict[int, NDArray[np.float64]]:
    """The kept probabilities (members, classes) of these images, by index; empty if none were kept."""
    rows = (_KEPT.get() or {}).get(key, _Rows()).places
    found = {index: rows[sample.digest] for index, sample in enumerate(samples) if sample.digest in rows}
    return {index: stack[:, place] for index, (stack, place) in found.items()}


def _model(folder: Path) -> Hashable:
    """All of a checkpoint that decides its outputs for an image."""
    files = [folder / name for name in (WEIGHTS, CONFIG, HELD_OUT_HEAD)]
    meta = read_meta(folder)
    digests = [sha256(file, error=CheckpointError) if file.is_file() else "" for file in files]
    return (*digests, refit_digests(meta), repr([meta.get(name) for name in _DECIDE]))

"""Trunk features: the input of a module of a network, computed once for each image and stored on disk.

The network is cut at that module (``freezing.trunk``). A cut is verified on images before it is used. The proof is
stored beside the rows, since network, images and machine are the same under one key.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor, nn

from tl_kit.config import CacheConfig, RuntimeConfig
from tl_kit.errors import CheckpointError
from tl_kit.freezing.trunk import Tail, Trunk, prove_cut
from tl_kit.inference.run_models import model_context
from tl_kit.machine.forward import filled_up
from tl_kit.machine.memory import is_out_of_memory, release_memory
from tl_kit.machine.runtime import Runtime
from tl_kit.reporting import Reporter
from tl_kit.storage.cache_keys import derived_key
from tl_kit.storage.feature_store import FeatureStore, cache_root
from tl_kit.untrusted import read_json

__all__ = ["TrunkFeatures", "cache_is_off", "feature_place", "prove_features"]

_PROOF = "proof"
_PROOF_IMAGES = (8, 2)  # the second if memory runs out with the first


@dataclass(frozen=True)
class _Proof:
    """Proof of a cut: the way to call the tail, and the shape and bytes of one row of the trunk's output."""

    direct: bool
    image_shape: tuple[int, ...]
    row_shape: tuple[int, ...]
    row_bytes: int


@dataclass(frozen=True)
class TrunkFeatures:
    """Outputs of a model's trunk (n, ...) as rows of a store, and the tail that computes the model's outputs from them.

    ``row_shape`` and ``row_bytes`` are the shape and the bytes of one row.
    """

    trunk: Trunk
    tail: Tail
    store: FeatureStore
    row_shape: tuple[int, ...]
    row_bytes: int

    @property
    def flat(self) -> bool:
        """True if a row is a vector, and the module at the cut alone computes the model's output from it."""
        return self.tail.direct and len(self.row_shape) == 1

    def beside(self, *more: str) -> FeatureStore:
        """A store for other values of the same network and images."""
        return FeatureStore(self.store.root, derived_key(self.store.key, *more), self.store.limit)


def cache_is_off(cache: CacheConfig, runtime: RuntimeConfig) -> bool:
    """True if the user's settings store no rows for later runs."""
    return cache.size_gb <= 0 or runtime.mode == "plain"


def feature_place(
    cache: CacheConfig, runtime: RuntimeConfig, scratch: Callable[[], Path], reporter: Reporter
) -> tuple[Path, int]:
    """The cache's folder and its limit in bytes; ``scratch``, without a limit, if the cache is off or not writable."""
    root = cache_root(cache)
    if cache_is_off(cache, runtime) or not _writable(root, reporter):
        return scratch(), sys.maxsize
    return root, int(cache.size_gb * 1e9)


def _writable(root: Path, reporter: Reporter) -> bool:
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reporter.message(
            f"{root}: the cache cannot be written there ({error.strerror}); nothing is kept after this run"
        )
        return False
    return os.access(root, os.W_OK)


def prove_features(
    model: nn.Module,
    cut: str,
    store: FeatureStore,
    *,
    runtime: Runtime,
    input_size: Sequence[int],
    images: Callable[[int], Tensor | None],
) -> TrunkFeatures | None:
    """The trunk features of a model in eval mode; None if they do not determine the model's output.

    ``input_size`` is that of an image (c, h, w). ``images(count)`` returns about that many images as model input, at
    least two, or None if there are none. It is called only if no earlier run has stored the same proof.
    """
    proof = _known_proof(store, tuple(input_size)) or _prove(model, cut, store, runtime, images)
    if proof is None:
        return None
    tail = Tail(model, cut, image_shape=proof.image_shape, direct=proof.direct).eval()
    return TrunkFeatures(Trunk(model, cut).eval(), tail, store, proof.row_shape, proof.row_bytes)


def _known_proof(store: FeatureStore, input_size: tuple[int, ...]) -> _Proof | None:
    """The proof of an earlier run under the same key; None where it is missing or its values are impossible."""
    try:
        content = read_json(store.root / store.key / _PROOF, error=CheckpointError)
        shape, row = (tuple(int(side) for side in content[name]) for name in ("image_shape", "row_shape"))
        proof = _Proof(bool(content["direct"]), shape, row, int(content["row_bytes"]))
    except (CheckpointError, ValueError, KeyError, TypeError, OverflowError):
        return None
    sides = zip(proof.image_shape, input_size, strict=False)
    fits = len(proof.image_shape) == len(input_size) and all(0 < side <= own for side, own in sides)
    return proof if fits and proof.row_bytes > 0 else None


def _prove(
    model: nn.Module, cut: str, store: FeatureStore, runtime: Runtime, images: Callable[[int], Tensor | None]
) -> _Proof | None:
    tries = [(_PROOF_IMAGES[0], runtime.rows), *((count, None) for count in _PROOF_IMAGES)]
    for count, rows in tries if runtime.rows else tries[1:]:
        try:
            batch = images(count)
            return None if batch is None else _prove_on(model, cut, store, runtime, filled_up(batch, rows))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or (count, rows) == tries[-1]:
                raise
        release_memory()
    return None


def _prove_on(model: nn.Module, cut: str, store: FeatureStore, runtime: Runtime, batch: Tensor) -> _Proof | None:
    with model_context([model], runtime):
        tail = prove_cut(model, cut, batch)
        if tail is None:
            return None
        row = Trunk(model, cut)(batch)[0]
    proof = _Proof(tail.direct, tail.image_shape, tuple(row.shape), row.nbytes)
    store.note(_PROOF, asdict(proof))
    return proof

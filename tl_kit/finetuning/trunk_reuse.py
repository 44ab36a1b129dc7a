"""Trunk reuse in a run: what the policy freezes is computed once per image and view, and kept for later runs."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tl_kit.data.manifest import Sample
from tl_kit.errors import CheckpointError
from tl_kit.finetuning.run import Run
from tl_kit.freezing.trunk import Tail, Trunk, find_cut, prove_cut
from tl_kit.images.augmentation import TrainTransform, augment
from tl_kit.images.transforms import normalize
from tl_kit.inference.run_models import model_context
from tl_kit.machine.forward import forward_rows
from tl_kit.machine.memory import is_out_of_memory, release_memory
from tl_kit.reporting import tell
from tl_kit.storage.atomic import write_atomically
from tl_kit.storage.cache_keys import cache_key, derived_key
from tl_kit.storage.feature_store import FeatureStore, cache_root
from tl_kit.storage.fingerprint import plain_fields
from tl_kit.zoo.heads import linear_classifier

__all__ = ["EVAL", "Reuse", "open_reuse", "pixels_of", "row_name", "stage_store"]

EVAL = "eval"
_VIEW_SEED = 0  # the same views for every run: members with other seeds then share them, each in its own order
_PROOF = "proof"
_PROOF_IMAGES = 8


@dataclass(frozen=True)
class Reuse:
    """A proved cut, its tail, and the trunk's outputs on disk."""

    run: Run
    trunk: Trunk
    tail: Tail
    store: FeatureStore
    row_bytes: int

    def rows(self, samples: tuple[Sample, ...], view: str | list[str] = EVAL) -> Tensor:
        """Trunk outputs (n, ...) of samples, each in the given view; they must have been filled."""
        views = [view] * len(samples) if isinstance(view, str) else view
        return self.store.get([row_name(s, v) for s, v in zip(samples, views, strict=True)])

    def fill(self, split: str, views: tuple[str, ...] = (EVAL,)) -> None:
        """Compute what is missing of a split, decoding only the images that need it."""
        run = self.run
        with run.accelerator.main_process_first():
            self.store.refresh()
            self._fill(split, views)

    def _fill(self, split: str, views: tuple[str, ...]) -> None:
        run = self.run
        wanted = {v: self._missing(split, v) for v in views}
        lacking = tuple({s.digest: s for samples in wanted.values() for s in samples}.values())
        if not lacking:
            return
        crop = views == (EVAL,)
        gone = run.decode(lacking, crop=crop)
        run.reporter.start(f"features {split}", sum(len(samples) for samples in wanted.values()))
        for view, samples in wanted.items():
            kept = [s for s in samples if s.digest not in gone]
            with run.clock("features"), model_context([self.trunk.model], run.runtime):
                self.store.add([row_name(s, view) for s in kept], self._batches(kept, view))

    def logits(self, split: str) -> Tensor:
        """The model's outputs on a split, as the inference loop would give them: (n, classes), float32, on the CPU."""
        samples, size = self.run.manifest.split(split), self.run.runtime.batch_size
        self.tail.eval()
        found = []
        with model_context([self.trunk.model], self.run.runtime):
            for start in range(0, len(samples), size):
                rows = self.rows(samples[start : start + size]).to(self.run.runtime.device)
                found.append(forward_rows(self.tail, rows).float().cpu())
        tell(self.run.reporter)
        return torch.cat(found) if found else torch.empty(0)

    def _missing(self, split: str, view: str) -> list[Sample]:
        samples = self.run.manifest.split(split)
        return [samples[i] for i in self.store.missing([row_name(s, view) for s in samples])]

    def _batches(self, samples: list[Sample], view: str) -> Iterator[Tensor]:
        run, size = self.run, self.run.runtime.batch_size
        for start in range(0, len(samples), size):
            part = samples[start : start + size]
            images = normalize(run.runtime.batch(pixels_of(run, part, view)), run.preprocessing)
            yield forward_rows(self.trunk, images).cpu()
            tell(run.reporter)
            run.reporter.advance(len(part))


def open_reuse(run: Run, order: list[str]) -> Reuse | None:
    """The reuse of what the policy freezes; None where nothing is frozen, the cache is off, or no cut is exact.

    With the cache off, ``head`` still computes its features once, in a temporary folder that goes with the run.
    """
    off = run.config.cache.size_gb <= 0 or run.config.runtime.mode == "plain"
    if off and not run.policy.head_only:
        return None
    cuts = _cuts(run, order)
    if not cuts:
        return None
    if run.config.regularization.mixup or run.config.regularization.cutmix:
        run.reporter.message("mixed images are new in every batch: the frozen part runs every time")
        return None
    run.model.eval()
    root, limit = cache_root(run.config.cache), int(run.config.cache.size_gb * 1e9)
    if off or not _writable(root, run):
        root, limit = _temporary(run), sys.maxsize
    for cut in cuts:
        store = FeatureStore(root, _key(run, cut, order), limit)
        proof = _known_proof(store, run.preprocessing.input_size) or _prove(run, cut, store)
        if proof is not None:
            break
    else:
        run.reporter.message(f"no cut of {run.config.model} is exact: the frozen part runs every time")
        return None
    least = proof.row_bytes * len(run.manifest.samples)
    if least > limit and run.policy.head_only:
        store = FeatureStore(_temporary(run), store.key, sys.maxsize)
    elif least > limit:
        run.reporter.message(
            f"the frozen part's outputs take {least / 1e9:.1f} GB, more than --cache-size allows: it runs every time"
        )
        return None
    tail = Tail(run.model, cut, image_shape=proof.image_shape, direct=proof.direct).eval()
    return Reuse(run, Trunk(run.model, cut).eval(), tail, store, proof.row_bytes)


def _cuts(run: Run, order: list[str]) -> list[str]:
    """Where the model may be cut, the best place first: under ``head`` at the classifier itself, behind its pooling."""
    largest = find_cut(run.model, order)
    found = linear_classifier(run.model) if run.policy.head_only else None
    cuts = [] if largest is None else [largest]
    return [found[0], *cuts] if found is not None and cuts and found[0] != largest else cuts


def _temporary(run: Run) -> Path:
    """A folder that goes when the run ends."""
    return Path(run.cleanup.enter_context(tempfile.TemporaryDirectory(prefix="tlkit-")))


def stage_store(run: Run, reuse: Reuse, names: Sequence[str]) -> FeatureStore:
    """Where features pooled at these stages are kept, beside the reuse's own rows."""
    return FeatureStore(reuse.store.root, derived_key(reuse.store.key, "stages", *names), reuse.store.limit)


def _writable(root: Path, run: Run) -> bool:
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        run.reporter.message(f"{root}: no cache can be kept there ({error.strerror}); nothing is kept after this run")
        return False
    return os.access(root, os.W_OK)


def view_names(count: int) -> tuple[str, ...]:
    """Names of the augmented views of an image."""
    return tuple(f"augmented-{number}" for number in range(count))


def view_of(
    indices: NDArray[np.int64], turn: NDArray[np.int64] | int, *, views: int, seed: int, images: int
) -> list[str]:
    """Each image starts at a view that the seed draws, and takes the next one each turn: an epoch, or one more use."""
    first = np.random.default_rng([seed, 1]).integers(views, size=images)
    return [view_names(views)[number] for number in (first[indices] + turn) % views]


def row_name(sample: Sample, view: str) -> str:
    """What a stored row is called: the image's content and the view."""
    return f"{sample.digest}/{view}"


def pixels_of(run: Run, samples: list[Sample], view: str) -> Tensor:
    """A uint8 batch (n, 3, h, w) of samples in one view."""
    if view == EVAL:
        return torch.stack(run.store.get(samples, crop=True))
    transform = TrainTransform(run.preprocessing, run.augment)
    number = int(view.rsplit("-", 1)[1])
    pixels = run.store.get(samples, crop=False)
    return augment(pixels, transform, seed=_VIEW_SEED, epoch=number, keys=[s.digest for s in samples])


def _key(run: Run, cut: str, order: list[str]) -> str:
    return cache_key(
        run.model,
        cut,
        order=order,
        preprocessing=run.preprocessing,
        runtime=run.runtime,
        decode=run.config.decode,
        more={"rows": "trunk", "augment": plain_fields(run.augment), "view_seed": _VIEW_SEED},
    )


@dataclass(frozen=True)
class _Proof:
    """That a cut is exact: how its tail must be called, and the size of one row of the trunk's output."""

    direct: bool
    image_shape: tuple[int, ...]
    row_bytes: int


def _known_proof(store: FeatureStore, image_shape: tuple[int, ...]) -> _Proof | None:
    """What an earlier run has proved under the same key; None too where the file says what it cannot."""
    try:
        content = json.loads((store.root / store.key / _PROOF).read_text(encoding="utf-8"))
        shape = tuple(int(side) for side in content["image_shape"])
        proof = _Proof(bool(content["direct"]), shape, int(content["row_bytes"]))
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
    sides = zip(proof.image_shape, image_shape, strict=False)
    fits = len(proof.image_shape) == len(image_shape) and all(0 < side <= own for side, own in sides)
    return proof if fits and proof.row_bytes > 0 else None


def _prove(run: Run, cut: str, store: FeatureStore) -> _Proof | None:
    for images in (_PROOF_IMAGES, 2):
        try:
            return _prove_on(run, cut, store, images)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or images == 2:
                raise
        release_memory()
    return None


def _prove_on(run: Run, cut: str, store: FeatureStore, count: int) -> _Proof | None:
    samples = run.manifest.split("train")[:count]
    gone = run.decode(samples, crop=True, show=False)
    pixels = run.store.get([sample for sample in samples if sample.digest not in gone], crop=True)
    if not pixels:
        return None
    images = normalize(run.runtime.batch(torch.stack([*pixels, *pixels][: max(2, len(pixels))])), run.preprocessing)
    with model_context([run.model], run.runtime):
        tail = prove_cut(run.model, cut, images)
        if tail is None:
            return None
        proof = _Proof(tail.direct, tail.image_shape, Trunk(run.model, cut)(images)[0].nbytes)
    _keep(proof, store.root / store.key)
    return proof


def _keep(proof: _Proof, folder: Path) -> None:
    """Where the cache was cleared meanwhile, the cut is proved again the next time."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        write_atomically(folder / _PROOF, lambda path: _write(path, json.dumps(asdict(proof))))
    except CheckpointError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            raise


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")

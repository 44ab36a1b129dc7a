"""Trunk reuse in a run: what the policy freezes is computed once per image and view, and kept for later runs."""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tl_kit.data.manifest import Sample
from tl_kit.finetuning.run import Run
from tl_kit.freezing.trunk import find_cut
from tl_kit.images.augmentation import TrainTransform
from tl_kit.images.batched import vary
from tl_kit.images.transforms import normalize
from tl_kit.inference.run_models import model_context
from tl_kit.inference.trunk_features import TrunkFeatures, cache_is_off, feature_place, prove_features
from tl_kit.machine.forward import forward_rows
from tl_kit.reporting import tell
from tl_kit.storage.cache_keys import cache_key
from tl_kit.storage.feature_store import FeatureStore
from tl_kit.storage.fingerprint import plain_fields
from tl_kit.zoo.heads import linear_classifier

__all__ = ["EVAL", "MIRRORED", "Reuse", "image_batches", "open_reuse", "pixels_of", "row_name", "shard_rows"]

EVAL = "eval"
MIRRORED = "mirrored"
"""The view of evaluation, turned round from left to right."""

_SHARDS = 8  # files that one pass over a split writes into the cache, at most
_CROPS = frozenset({EVAL, MIRRORED})
_VIEW_SEED = 0  # the same views for every run: members with other seeds then share them, each in its own order


@dataclass(frozen=True)
class Reuse:
    """The trunk's outputs on the run's images."""

    run: Run
    features: TrunkFeatures

    def rows(self, samples: tuple[Sample, ...], view: str | list[str] = EVAL) -> Tensor:
        """Trunk outputs (n, ...) of samples, each in the given view; they must have been filled."""
        views = [view] * len(samples) if isinstance(view, str) else view
        return self.features.store.get([row_name(s, v) for s, v in zip(samples, views, strict=True)])

    def fill(self, split: str, views: tuple[str, ...] = (EVAL,)) -> None:
        """Compute what is missing of a split, decoding only the images that need it."""
        self.fill_some(self.run.manifest.split(split), views, name=split)

    def fill_some(self, samples: Sequence[Sample], views: tuple[str, ...] = (EVAL,), *, name: str) -> None:
        """The same of a part of a split, which ``name`` names for the user, without images that have left the run."""
        with self.run.accelerator.main_process_first():
            self.features.store.refresh()
            present = frozenset(self.run.manifest.samples)
            self._fill([sample for sample in samples if sample in present], views, name)

    def _fill(self, samples: Sequence[Sample], views: tuple[str, ...], name: str) -> None:
        run = self.run
        wanted = {v: self.missing(samples, v) for v in views}
        lacking = tuple({s.digest: s for missing in wanted.values() for s in missing}.values())
        if not lacking:
            return
        gone = run.decode(lacking, crop=_CROPS.issuperset(views) or not run.augment.draws_crops)
        run.reporter.start(f"features {name}", sum(map(len, wanted.values())))
        for view, missing in wanted.items():
            kept = [s for s in missing if s.digest not in gone]
            with run.clock("features"), model_context([run.model], run.runtime):
                rows = shard_rows(len(kept), run.runtime.batch_size)
                for part in (kept[start : start + rows] for start in range(0, len(kept), rows)):
                    self.features.store.add([row_name(s, view) for s in part], self._batches(part, view))

    def logits(self, split: str) -> Tensor:
        """The model's outputs on a split, as the inference loop would give them: (n, classes), float32, on the CPU."""
        samples, size = self.run.manifest.split(split), self.run.runtime.batch_size
        self.features.tail.eval()
        found = []
        with model_context([self.run.model], self.run.runtime):
            for start in range(0, len(samples), size):
                rows = self.rows(samples[start : start + size]).to(self.run.runtime.device)
                found.append(forward_rows(self.features.tail, rows, rows=self.run.runtime.rows).float().cpu())
        tell(self.run.reporter)
        return torch.cat(found) if found else torch.empty(0)

    def missing(self, samples: Sequence[Sample], view: str = EVAL) -> list[Sample]:
        """Those whose trunk outputs in this view are not stored."""
        return [samples[i] for i in self.features.store.missing([row_name(s, view) for s in samples])]

    def _batches(self, samples: list[Sample], view: str) -> Iterator[Tensor]:
        for images in image_batches(self.run, samples, view):
            yield forward_rows(self.features.trunk, images, rows=self.run.runtime.rows).cpu()
            tell(self.run.reporter)


def shard_rows(images: int, batch_size: int) -> int:
    """Images of one of a pass's few files, in whole batches. A file that is written stays if the pass is cut short."""
    return max(1, math.ceil(images / _SHARDS / batch_size)) * batch_size


def open_reuse(run: Run, order: list[str]) -> Reuse | None:
    """The reuse of what the policy freezes; None where nothing is frozen, the cache is off, or no cut is exact.

    With the cache off, ``head`` still computes its features once, in a temporary folder that goes with the run.
    """
    config = run.config
    if run.policy.adapters or (cache_is_off(config.cache, config.runtime) and not run.policy.head_only):
        return None  # adapters train nearly everywhere
    cuts = _cuts(run, order)
    if not cuts:
        return None
    if config.regularization.mixup or config.regularization.cutmix:
        run.reporter.message("mixed images are new in every batch: the frozen part runs every time")
        return None
    run.model.eval()
    root, limit = feature_place(config.cache, config.runtime, lambda: _temporary(run), run.reporter)
    proved = (_features(run, cut, FeatureStore(root, _key(run, cut, order), limit)) for cut in cuts)
    features = next(filter(None, proved), None)
    if features is None:
        run.reporter.message(f"no cut of {config.model} is exact: the frozen part runs every time")
        return None
    least = features.row_bytes * len(run.manifest.samples)
    if least > limit and run.policy.head_only:
        features = replace(features, store=FeatureStore(_temporary(run), features.store.key, sys.maxsize))
    elif least > limit:
        run.reporter.message(
            f"the frozen part's outputs take {least / 1e9:.1f} GB, more than --cache-size allows: it runs every time"
        )
        return None
    return Reuse(run, features)


def _features(run: Run, cut: str, store: FeatureStore) -> TrunkFeatures | None:
    """Proved on training images."""

    def images(count: int) -> Tensor | None:
        samples = run.manifest.split("train")[:count]
        gone = run.decode(samples, crop=True, show=False)
        pixels = run.store.get([sample for sample in samples if sample.digest not in gone], crop=True)
        if not pixels:
            return None
        return normalize(run.runtime.batch(torch.stack([*pixels, *pixels][: max(2, len(pixels))])), run.preprocessing)

    size = run.preprocessing.input_size
    return prove_features(run.model, cut, store, runtime=run.runtime, input_size=size, images=images)


def _cuts(run: Run, order: list[str]) -> list[str]:
    """Modules at which to cut the model, the best first: under ``head`` the classifier itself, behind its pooling."""
    largest = find_cut(run.model, order)
    found = linear_classifier(run.model) if run.policy.head_only else None
    cuts = [] if largest is None else [largest]
    return [found[0], *cuts] if found is not None and cuts and found[0] != largest else cuts


def _temporary(run: Run) -> Path:
    """A folder that goes when the run ends."""
    return Path(run.cleanup.enter_context(tempfile.TemporaryDirectory(prefix="tlkit-")))


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
    """Name of a stored row: the image's digest and the view."""
    return f"{sample.digest}/{view}"


def pixels_of(run: Run, samples: list[Sample], view: str) -> Tensor:
    """A uint8 batch (n, 3, h, w) of samples in one view."""
    if view in _CROPS:
        pixels = torch.stack(run.store.get(samples, crop=True))
        return pixels if view == EVAL else pixels.flip(-1)
    transform = TrainTransform(run.preprocessing, run.augment)
    number = int(view.rsplit("-", 1)[1])
    wholes = run.store.get(samples, crop=not run.augment.draws_crops)
    keys = [sample.digest for sample in samples]
    return vary(wholes, transform, seed=_VIEW_SEED, epoch=number, keys=keys, device=run.runtime.device)


def image_batches(run: Run, samples: list[Sample], view: str) -> Iterator[Tensor]:
    """Batches of samples in one view, as the network takes them; the run's progress advances by each."""
    size = run.runtime.batch_size
    for start in range(0, len(samples), size):
        part = samples[start : start + size]
        yield normalize(run.runtime.batch(pixels_of(run, part, view)), run.preprocessing)
        run.reporter.advance(len(part))


def _key(run: Run, cut: str, order: list[str]) -> str:
    return cache_key(
        run.model,
        cut,
        order=order,
        preprocessing=run.preprocessing,
        runtime=run.runtime,
        decode=run.config.decode,
        more={
            "rows": "trunk",
            "augment": None if run.policy.head_only else plain_fields(run.augment),  # a head sees no varied images
            "view_seed": _VIEW_SEED,
            "training_scale": run.store.scale,
        },
    )

"""Batch sources of the gradient methods: images for the whole model, or the trunk's outputs for its tail."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from tl_kit import metrics
from tl_kit.data.device_pixels import DevicePixels
from tl_kit.data.manifest import Sample, labels_of
from tl_kit.errors import NonFiniteError
from tl_kit.finetuning.run import Run
from tl_kit.finetuning.trunk_reuse import EVAL, Reuse, view_names, view_of
from tl_kit.freezing.adapters import Adapters
from tl_kit.freezing.train_mode import forward_order
from tl_kit.images.augmentation import TrainTransform
from tl_kit.images.batched import vary
from tl_kit.images.mixing import mix
from tl_kit.images.transforms import normalize
from tl_kit.inference.run_models import Scorer, StoreReader, run_models
from tl_kit.machine.process_group import first_answer
from tl_kit.machine.random_state import restored_random_state
from tl_kit.machine.runtime import send
from tl_kit.training.late_losses import ADVICE
from tl_kit.zoo.heads import classifier_names, in_modules

__all__ = [
    "PlainSource",
    "ReusedSource",
    "Source",
    "TaughtSource",
    "agreed_scores",
    "choose_views",
    "copy_keys",
    "open_source",
]

Indices = NDArray[np.int64]


class Source(Protocol):
    """``module`` is what trains; ``batch`` feeds it; ``logits`` are the whole model's outputs on a split.

    ``adapters``: those that train in place of the model's own weights; None under a policy that has none.
    ``give_up`` frees memory of the device that batches can do without (:class:`tl_kit.training.task.Task`).

    Of n training images, the index i + n t is image i in its (t + 1)-th use of the epoch, varied anew.
    """

    @property
    def module(self) -> nn.Module: ...

    @property
    def adapters(self) -> Adapters | None: ...

    def batch(self, indices: Indices, epoch: int) -> tuple[Tensor, Tensor]: ...

    def give_up(self) -> bool: ...

    def logits(self, split: str) -> Tensor: ...


def copy_keys(samples: Sequence[Sample]) -> list[str]:
    """Names of the samples' random draws: each copy of an image has its own, and so its own augmentation."""
    seen: Counter[str] = Counter()
    keys = []
    for sample in samples:
        copy = seen[sample.digest]
        keys.append(f"{sample.digest}#{copy}" if copy else sample.digest)
        seen[sample.digest] += 1
    return keys


class PlainSource:
    """Augmented images (n, 3, h, w), every one through the whole model."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.adapters = _adapters(run) if run.policy.adapters else None
        self.module = run.model if self.adapters is None else self.adapters.module
        self.augmented = not run.policy.head_only and run.augment.active
        self.cropped = not (self.augmented and run.augment.draws_crops)
        run.decode(run.manifest.split("train"), crop=self.cropped)
        run.decode(run.manifest.split("val") + run.manifest.split("test"), crop=True)
        self.samples = run.manifest.split("train")
        self.labels = torch.from_numpy(labels_of(self.samples))
        self.pixels = DevicePixels(run.store, self.samples, crop=self.cropped, device=run.runtime.device)
        self.transform = TrainTransform(run.preprocessing, run.augment)
        self.keys = copy_keys(self.samples)

    def batch(self, indices: Indices, epoch: int) -> tuple[Tensor, Tensor]:
        drawn, (turns, indices) = indices, np.divmod(indices, len(self.samples))
        run, samples = self.run, [self.samples[index] for index in indices]
        pixels = self.pixels.get(samples)
        if self.augmented:
            keys = [f"{self.keys[i]}/{turn}" if turn else self.keys[i] for i, turn in zip(indices, turns, strict=True)]
            drawn_by, device = run.config.seed, run.runtime.device
            images = vary(pixels, self.transform, seed=drawn_by, epoch=epoch, keys=keys, device=device)
        else:
            images = torch.stack(pixels)
        inputs = normalize(run.runtime.batch(images), run.preprocessing)
        labels = send(self.labels[torch.from_numpy(indices)], run.runtime.device)
        run.clock.start_training()
        config = run.config.regularization
        if not config.mixup and not config.cutmix:
            return inputs, labels
        seed = (run.config.seed, epoch, *drawn)
        return mix(inputs, labels, len(run.manifest.classes), mixup=config.mixup, cutmix=config.cutmix, seed=seed)

    def give_up(self) -> bool:
        return self.pixels.give_up()

    def logits(self, split: str) -> Tensor:
        run = self.run
        reader = StoreReader(run.store, run.manifest.split(split))
        if len(reader):
            run.reporter.start(f"evaluate {split}", len(reader))
        return run_models([Scorer(run.model, run.preprocessing, run.runtime)], reader, reporter=run.reporter)[0]


class ReusedSource:
    """The trunk's outputs on a fixed number of views of each image, through the tail alone."""

    def __init__(self, run: Run, reuse: Reuse, *, views: int) -> None:
        self.run = run
        self.reuse = reuse
        self.adapters = None
        self.module = _with_dropout(run, reuse)
        self.views = views
        for split in ("val", "test"):
            reuse.fill(split)
        reuse.fill("train", view_names(views) if views else (EVAL,))
        self.samples = run.manifest.split("train")
        self.labels = torch.from_numpy(labels_of(self.samples))

    def batch(self, indices: Indices, epoch: int) -> tuple[Tensor, Tensor]:
        run = self.run
        turns, indices = np.divmod(indices, len(self.samples))
        views: str | list[str] = EVAL
        if self.views:
            views = view_of(indices, epoch + turns, views=self.views, seed=run.config.seed, images=len(self.samples))
        rows = self.reuse.rows(tuple(self.samples[index] for index in indices), views)
        inputs = rows.to(run.runtime.device).float()
        run.clock.start_training()
        return inputs, self.labels[torch.from_numpy(indices)].to(run.runtime.device)

    def give_up(self) -> bool:
        return False

    def logits(self, split: str) -> Tensor:
        return self.reuse.logits(split)


def _adapters(run: Run) -> Adapters:
    """New adapters, drawn by the run's seed, of all layers that a forward pass enters."""
    order = set(forward_order(run.model, run.runtime.batch(torch.zeros((2, *run.preprocessing.input_size)))))
    names = (name.removesuffix(".weight") for name in run.trainable())
    heads, rank = classifier_names(run.model), run.policy.depth
    assert rank is not None
    entered = sorted(name for name in names if name in order and not in_modules(f"{name}.weight", heads))
    with restored_random_state(run.runtime.device):
        torch.manual_seed(run.config.seed)
        return Adapters(run.model, entered, rank=rank, alpha=run.config.adapters.alpha)


def open_source(run: Run, reuse: Reuse | None, *, epochs: int) -> tuple[Source, int | None]:
    """The source of batches, and its number of views of an image; None where every epoch has views of its own."""
    if run.config.cache.views is not None and (reuse is None or not run.augment.active):
        run.reporter.message("--views changes nothing here: the frozen part runs every time, or images are not varied")
    if reuse is None:
        return _taught(run, PlainSource(run)), None
    views = choose_views(run, reuse, epochs=epochs)
    if views:
        run.reporter.message(f"the frozen part runs once on each of {views} augmented views of an image")
    return _taught(run, ReusedSource(run, reuse, views=views)), views


def _taught(run: Run, source: Source) -> Source:
    """With the teacher's probabilities beside the labels, where the run has one."""
    return source if run.config.distill is None else TaughtSource(run, source)


def _with_dropout(run: Run, reuse: Reuse) -> nn.Module:
    """The tail; where it is the classifier alone, the dropout before it, which the trunk ran through, is put back."""
    given = run.config.regularization.dropout
    p = float(getattr(run.model, "drop_rate", 0.0) or 0.0) if given is None else given
    if not p or not (reuse.features.tail.direct and reuse.features.tail.cut in classifier_names(run.model)):
        return reuse.features.tail
    return nn.Sequential(nn.Dropout(p), reuse.features.tail)


def choose_views(run: Run, reuse: Reuse, *, epochs: int) -> int:
    """Augmented views an image: what the run asks for, never more than its epochs, and what half the cache holds.

    0 for the ``head`` policy and without augmentation: images as evaluation sees them.
    """
    config = run.config.cache
    if run.policy.head_only or not run.augment.active:
        return 0
    wanted = min(config.views or config.default_views, epochs)
    per_view = reuse.features.row_bytes * len(run.manifest.split("train"))
    return max(1, min(wanted, int(config.size_gb * 1e9 / 2 / per_view)))


class TaughtSource:
    """Another source's batches, whose labels become (n, 2, k): the true ones, and the teacher's probabilities."""

    def __init__(self, run: Run, source: Source) -> None:
        assert run.taught is not None
        self.source = source
        self.adapters = source.adapters
        self.module: nn.Module = source.module
        self.classes = len(run.manifest.classes)
        rows = [run.taught.targets[sample.digest] for sample in run.manifest.split("train")]
        self.soft = torch.stack(rows).to(run.runtime.device)

    def batch(self, indices: Indices, epoch: int) -> tuple[Tensor, Tensor]:
        inputs, labels = self.source.batch(indices, epoch)
        soft = self.soft[torch.from_numpy(indices % len(self.soft)).to(self.soft.device)]
        return inputs, torch.stack([functional.one_hot(labels, self.classes).to(soft.dtype), soft], dim=1)

    def give_up(self) -> bool:
        return self.source.give_up()

    def logits(self, split: str) -> Tensor:
        return self.source.logits(split)


def agreed_scores(run: Run, source: Source) -> Mapping[str, float] | None:
    """The first process's validation scores, in all processes: they must agree on the best epoch and on stopping.

    Every process has BatchNorm statistics of its own; those of the first are the ones that are saved. None without
    validation images. Raises NonFiniteError where an output is not finite.
    """
    if not run.manifest.split("val"):
        return None
    scores = first_answer(_scores(run, source))
    if scores is None:
        raise NonFiniteError(f"the model's outputs are not finite: {ADVICE}")
    return scores


def _scores(run: Run, source: Source) -> Mapping[str, float] | None:
    """None if an output is not finite."""
    logits = source.logits("val").numpy().astype(np.float64)
    if not np.isfinite(logits).all():
        return None
    return metrics.summary(metrics.softmax(logits), labels_of(run.manifest.split("val")))

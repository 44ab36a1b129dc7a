"""Policies trained by gradient descent: the loop of ``training.loop`` put to work on a run."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from accelerate.utils import broadcast_object_list
from numpy.typing import NDArray
from torch import Tensor, nn

from tl_kit import metrics
from tl_kit.api.outcome import Outcome
from tl_kit.api.run import Run, labels_of
from tl_kit.data.transforms import TrainTransform, augment, normalize
from tl_kit.errors import ConfigError, TrainingError
from tl_kit.freezing.audit import frozen_tensors, run_audit
from tl_kit.freezing.modes import apply_policy, forward_order, set_train_mode
from tl_kit.inference import StoreReader, run_models
from tl_kit.optimization.groups import param_groups
from tl_kit.optimization.optimizers import create_optimizer, default_lr, needs_second_order
from tl_kit.optimization.schedules import create_schedule, set_lr
from tl_kit.training.checkpoint import save_weights
from tl_kit.training.journal import Journal
from tl_kit.training.loop import FitResult, Task, fit

__all__ = ["fit_by_gradient"]


def fit_by_gradient(run: Run) -> Outcome:
    """Train under the run's policy; the model ends with the weights of its best epoch, which are those saved."""
    trainable = run.trainable()
    apply_policy(run.model, trainable)
    run.runtime.place(run.model)
    order = forward_order(run.model, _example(run))
    set_train_mode(run.model, order)
    before = frozen_tensors(run.model)
    keeper = _BestKeeper(run)
    task, settings = _task(run, trainable, order, keeper)
    status, error = "finished", None
    with run.clock("train"), torch.random.fork_rng():
        torch.manual_seed(run.config.seed)
        try:
            result = fit(task, run.accelerator, reporter=run.reporter)
        except TrainingError as failure:
            if not keeper.best:
                raise
            result, status, error = keeper.result(), "failed", str(failure)
    if result.interrupted:
        status = "interrupted"
    if not keeper.best:
        raise KeyboardInterrupt
    keeper.restore()
    audit = run_audit(run.model, before)
    with run.clock("evaluate"):
        logits = {split: _logits(run, split) for split in ("val", "test")}
    return Outcome(
        optimizer=str(settings["optimizer"]),
        epochs=result.epochs,
        best_epoch=result.best_epoch,
        trainable_parameters=sum(p.numel() for n, p in run.model.named_parameters() if n in trainable),
        logits=logits,
        audit=audit,
        status=status,
        settings=settings,
        error=error,
    )


class _BestKeeper:
    """Keeps the best epoch's weights, in memory and in the run's folder."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.best: dict[str, Tensor] = {}
        self.epoch = 0

    def __call__(self, epoch: int, scores: Mapping[str, float] | None) -> None:
        self.epoch = epoch
        self.best = {name: tensor.detach().cpu().clone() for name, tensor in self.run.model.state_dict().items()}
        if self.run.writes:
            save_weights(self.run.folder, self.run.model)

    def restore(self) -> None:
        answer = [self.best]
        broadcast_object_list(answer)
        self.run.model.load_state_dict(answer[0])

    def result(self) -> FitResult:
        return FitResult(epochs=self.epoch, best_epoch=self.epoch)


def _task(
    run: Run, trainable: frozenset[str], order: list[str], keeper: _BestKeeper
) -> tuple[Task, dict[str, object]]:
    config, loop = run.config, run.config.loop
    samples = run.manifest.split("train")
    name = config.optimizer or (loop.optimizer if run.policy.name != "head" else loop.gradient_head_optimizer)
    pretrained = bool(run.weights.loaded) and run.policy.name != "head"  # a head alone is trained from scratch
    rate = config.lr if config.lr is not None else default_lr(name, pretrained=pretrained)
    epochs = config.epochs or (loop.head_epochs if run.policy.name == "head" else loop.epochs)
    batch_size = min(config.batch_size or loop.batch_size, len(samples))
    steps = math.ceil(len(samples) / batch_size)
    groups = param_groups(run.model, weight_decay=loop.weight_decay, layer_decay=None, trainable=trainable, lr=rate)
    optimizer = create_optimizer(name, groups, lr=rate, weight_decay=loop.weight_decay)
    schedule = config.schedule or loop.schedule
    total = epochs * steps
    warmup = 0 if schedule == "onecycle" else min(round(loop.warmup_epochs * steps), total - 1)
    multiplier = create_schedule(schedule, total_steps=total, warmup_steps=warmup)
    model, optimizer = run.accelerator.prepare(run.model, optimizer)
    journal = Journal(run.folder if run.writes else None)

    task = Task(
        model=model,
        optimizer=optimizer,
        images=len(samples),
        epochs=epochs,
        batch_size=batch_size,
        seed=config.seed,
        patience=config.patience,
        clip_norm=loop.clip_norm,
        batch=_Batches(run),
        evaluate=lambda: _agreed_scores(run),
        multiplier=multiplier,
        second_order=needs_second_order(name),
        set_rate=set_lr,
        set_mode=lambda size: set_train_mode(run.model, order, smallest_batch=size),
        on_best=keeper,
        on_epoch=lambda row: journal.write(**row),
    )
    return task, {
        "optimizer": name,
        "lr": rate,
        "schedule": schedule,
        "epochs": epochs,
        "batch_size": batch_size,
        "weight_decay": loop.weight_decay,
    }


class _Batches:
    """Augmented training batches: (indices, epoch) -> (inputs, labels) on the device."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.samples = run.manifest.split("train")
        self.labels = torch.from_numpy(labels_of(self.samples))
        self.transform = TrainTransform(run.preprocessing, run.config.augment)
        self.crop = run.policy.name == "head"

    def __call__(self, indices: NDArray[np.int64], epoch: int) -> tuple[Tensor, Tensor]:
        run = self.run
        samples = [self.samples[index] for index in indices]
        pixels = run.store.get(samples, crop=self.crop)
        keys = [sample.digest for sample in samples]
        if self.crop:
            images = torch.stack(pixels)
        else:
            images = augment(pixels, self.transform, seed=run.config.seed, epoch=epoch, keys=keys)
        inputs = normalize(run.runtime.batch(images), run.preprocessing)
        return inputs, self.labels[torch.from_numpy(indices)].to(run.runtime.device)


def _example(run: Run) -> Tensor:
    sample = run.manifest.split("train")[0]
    pixels = torch.stack(run.store.get([sample], crop=run.policy.name == "head"))
    height, width = run.preprocessing.input_size[1:]
    return normalize(run.runtime.batch(pixels[..., :height, :width]), run.preprocessing)


def _logits(run: Run, split: str) -> Tensor:
    reader = StoreReader(run.store, run.manifest.split(split))
    run.reporter.start(f"evaluate {split}", len(reader))
    return run_models([(run.model, run.preprocessing)], reader, run.runtime, reporter=run.reporter)[0]


def _agreed_scores(run: Run) -> Mapping[str, float] | None:
    """The first process's validation scores, in all processes: they must agree on the best epoch and on stopping.

    Every process has BatchNorm statistics of its own; those of the first are the ones that are saved.
    """
    answer = [_scores(run, "val")]
    broadcast_object_list(answer)
    return answer[0]


def _scores(run: Run, split: str) -> Mapping[str, float] | None:
    samples = run.manifest.split(split)
    if not samples:
        return None
    logits = _logits(run, split).numpy().astype(np.float64)
    if not np.isfinite(logits).all():
        raise TrainingError("the model's outputs are no longer finite: try a lower --lr; the best epoch so far is kept")
    return metrics.summary(metrics.softmax(logits), labels_of(samples))

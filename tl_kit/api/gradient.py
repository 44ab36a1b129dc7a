"""Policies trained by gradient descent: the loop of ``training.loop`` put to work on a run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor

from tl_kit import metrics
from tl_kit.api.compilation import compile_errors, compile_for
from tl_kit.api.outcome import Outcome
from tl_kit.api.reuse import Reuse
from tl_kit.api.run import Run, labels_of
from tl_kit.api.sources import PlainSource, ReusedSource, Source, choose_views
from tl_kit.config import OptimizerDefaults
from tl_kit.errors import TrainingError
from tl_kit.freezing.audit import frozen_tensors, run_audit
from tl_kit.freezing.modes import set_train_mode
from tl_kit.optimization.groups import param_groups
from tl_kit.optimization.optimizers import create_optimizer, default_lr, needs_second_order
from tl_kit.optimization.schedules import Schedule, create_schedule, set_lr
from tl_kit.training.checkpoint import save_weights
from tl_kit.training.journal import Journal
from tl_kit.training.loop import FitResult, Indices, Task, fit
from tl_kit.zoo.heads import classifier_names, in_modules

__all__ = ["Settings", "fit_by_gradient", "resolve"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A run's options with every ``None`` resolved."""

    optimizer: str
    lr: float
    schedule: str
    epochs: int
    batch_size: int
    weight_decay: float

    def to_dict(self) -> dict[str, object]:
        """Plain JSON."""
        return dict(vars(self))


def resolve(run: Run) -> Settings:
    """The settings of a gradient method, from the configuration, the policy and the data."""
    config, loop, head = run.config, run.config.loop, run.policy.name == "head"
    name = config.optimizer or (loop.gradient_head_optimizer if head else loop.optimizer)
    return Settings(
        optimizer=name,
        lr=config.lr if config.lr is not None else default_lr(name, pretrained=False) * _rate_scale(run),
        schedule=config.schedule or loop.schedule,
        epochs=config.epochs or (loop.head_epochs if head else loop.epochs),
        batch_size=min(config.batch_size or loop.batch_size, len(run.manifest.split("train"))),
        weight_decay=loop.weight_decay,
    )


def _rate_scale(run: Run) -> float:
    """What share of the from-scratch rate suits the policy; a head alone, or random weights, train from scratch."""
    defaults = OptimizerDefaults()
    if not run.weights.loaded or run.policy.name == "head":
        return 1.0
    return defaults.clipped_scale if run.config.loop.clip_norm > 0 else defaults.finetune_scale


def _start_head_at_zero(run: Run) -> None:
    """Under ``full``, a new head on pretrained layers starts at zero (as in BiT, Kolesnikov et al. 2020).

    The gradient of a random head would change the layers below before the head means anything.
    """
    if run.policy.name != "full" or not run.weights.loaded:
        return
    heads = classifier_names(run.model)
    with torch.no_grad():
        for name, parameter in run.model.named_parameters():
            if in_modules(name, heads):
                parameter.zero_()


def fit_by_gradient(run: Run, order: list[str], reuse: Reuse | None) -> Outcome:
    """Train under the run's policy; the model ends with the weights of its best epoch, which are those saved.

    ``order`` is the forward order of the model's modules. The policy has been applied, the model placed.
    """
    _start_head_at_zero(run)
    set_train_mode(run.model, order)
    before = frozen_tensors(run.model)
    settings = resolve(run)
    create_optimizer(settings.optimizer, [torch.zeros(1, requires_grad=True)], lr=settings.lr)  # a typo costs no pass
    _schedule(settings, steps=1)
    source, views = _source(run, reuse, settings)
    keeper = _BestKeeper(run)
    task = _task(run, order, settings, source, keeper)
    status, error = "finished", None
    with run.clock("train"), torch.random.fork_rng(), compile_errors():
        torch.manual_seed(run.config.seed)
        try:
            result = fit(task, run.accelerator, reporter=run.reporter)
        except TrainingError as failure:
            if not keeper.best:
                raise
            result, status, error = keeper.result(), "failed", str(failure)
    if not keeper.best:
        raise KeyboardInterrupt
    keeper.restore()
    audit = run_audit(run.model, before)
    with run.clock("evaluate"):
        logits = {split: source.logits(split) for split in ("val", "test")}
    return Outcome(
        epochs=result.epochs,
        best_epoch=result.best_epoch,
        trainable_parameters=sum(p.numel() for p in run.model.parameters() if p.requires_grad),
        logits=logits,
        audit=audit,
        status="interrupted" if result.interrupted else status,
        settings={**settings.to_dict(), "views": views},
        error=error,
    )


def _source(run: Run, reuse: Reuse | None, settings: Settings) -> tuple[Source, int | None]:
    if reuse is None:
        return PlainSource(run), None
    views = choose_views(run, reuse, epochs=settings.epochs)
    if views:
        run.reporter.message(f"the frozen part runs once on each of {views} augmented views of an image")
    source: Source = ReusedSource(run, reuse, views=views)
    return source, views


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


def _task(run: Run, order: list[str], settings: Settings, source: Source, keeper: _BestKeeper) -> Task:
    loop, images = run.config.loop, len(run.manifest.split("train"))
    trainable = {name for name, p in run.model.named_parameters() if p.requires_grad}
    decay = settings.weight_decay
    groups = param_groups(run.model, weight_decay=decay, layer_decay=None, trainable=trainable, lr=settings.lr)
    on_gpu, second_order = run.runtime.on_gpu, needs_second_order(settings.optimizer)
    optimizer = create_optimizer(settings.optimizer, groups, lr=settings.lr, weight_decay=decay, fused=on_gpu)
    module = compile_for(run, source.module, epochs=settings.epochs, second_order=second_order)
    module, optimizer = run.accelerator.prepare(module, optimizer)
    journal = Journal(run.folder if run.writes else None)
    steps = math.ceil(images / settings.batch_size)

    def first_noted(indices: Indices, epoch: int) -> tuple[Tensor, Tensor]:
        batch = source.batch(indices, epoch)
        run.clock.start_training()
        return batch

    return Task(
        model=module,
        optimizer=optimizer,
        images=images,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        seed=run.config.seed,
        patience=run.config.patience,
        clip_norm=loop.clip_norm,
        second_order=second_order,
        precision=run.runtime.training,
        prefetch=on_gpu,
        batch=first_noted,
        evaluate=lambda: _agreed_scores(run, source),
        multiplier=_schedule(settings, steps=steps, warmup_epochs=loop.warmup_epochs),
        set_rate=set_lr,
        set_mode=lambda size: set_train_mode(run.model, order, smallest_batch=size),
        on_best=keeper,
        on_epoch=lambda row: journal.write(**row),
    )


def _schedule(settings: Settings, *, steps: int, warmup_epochs: float = 0.0) -> Schedule:
    """The schedule over all epochs of so many steps; onecycle brings its own warm-up."""
    total = settings.epochs * steps
    warmup = 0 if settings.schedule == "onecycle" else min(round(warmup_epochs * steps), total - 1)
    return create_schedule(settings.schedule, total_steps=total, warmup_steps=warmup)


def _agreed_scores(run: Run, source: Source) -> Mapping[str, float] | None:
    """The first process's validation scores, in all processes: they must agree on the best epoch and on stopping.

    Every process has BatchNorm statistics of its own; those of the first are the ones that are saved.
    """
    answer = [_scores(run, source)]
    broadcast_object_list(answer)
    if answer[0] is None:
        raise TrainingError("the model's outputs are no longer finite: try a lower --lr; the best epoch so far is kept")
    return answer[0]


def _scores(run: Run, source: Source) -> Mapping[str, float] | None:
    """None if an output is not finite."""
    logits = source.logits("val").numpy().astype(np.float64)
    if not np.isfinite(logits).all():
        return None
    return metrics.summary(metrics.softmax(logits), labels_of(run.manifest.split("val")))

"""Policies trained by gradient descent: the loop of ``training.loop`` put to work on a run."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext

import numpy as np
import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn

from tl_kit import metrics
from tl_kit.api.compilation import compile_errors, compile_for
from tl_kit.api.outcome import Outcome
from tl_kit.api.regularizers import drop_connect, objective, penalty, weight_average
from tl_kit.api.reuse import Reuse
from tl_kit.api.run import Run, labels_of
from tl_kit.api.settings import Settings, resolve
from tl_kit.api.sources import PlainSource, ReusedSource, Source, choose_views
from tl_kit.errors import TrainingError
from tl_kit.freezing.audit import frozen_tensors, run_audit
from tl_kit.freezing.modes import set_train_mode
from tl_kit.optimization.groups import param_groups
from tl_kit.optimization.optimizers import create_optimizer, needs_second_order
from tl_kit.optimization.schedules import set_lr
from tl_kit.training.checkpoint import save_weights
from tl_kit.training.journal import Journal
from tl_kit.training.loop import FitResult, Indices, Task, fit
from tl_kit.training.range_test import range_test
from tl_kit.zoo.heads import classifier_names, in_modules

__all__ = ["fit_by_gradient"]


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
    drop_connect(run)
    source, views = _source(run, reuse, settings)
    keeper = _BestKeeper(run)
    status, error = "finished", None
    with run.clock("train"), torch.random.fork_rng(), compile_errors():
        torch.manual_seed(run.config.seed)
        if run.config.lr == "auto":
            settings = _choose_rate(run, order, settings, source, keeper)
        task = _task(run, order, settings, source, keeper)
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


def _choose_rate(run: Run, order: list[str], settings: Settings, source: Source, keeper: _BestKeeper) -> Settings:
    """The settings at the rate of a range test, the first process's in all of them. Nothing else is changed by it."""
    config = run.config.range_test
    run.reporter.start("range test", config.steps)
    trial = _task(run, order, settings, source, keeper, prepare=False)
    found = range_test(trial, run.accelerator, base=settings.lr, config=config)
    answer = [found.suggestion]
    broadcast_object_list(answer)
    run.reporter.message(
        f"learning rate {answer[0]:.2g}: where the loss fell fastest in {len(found.rates)} steps "
        f"from {found.rates[0]:.1g} to {found.rates[-1]:.1g}"
    )
    return settings.with_lr(answer[0])


def _task(
    run: Run, order: list[str], settings: Settings, source: Source, keeper: _BestKeeper, *, prepare: bool = True
) -> Task:
    """What the loop needs. Without ``prepare`` it is a trial: nothing is distributed, compiled, averaged or noted."""
    on_gpu, second_order = run.runtime.on_gpu, needs_second_order(settings.optimizer)
    module: nn.Module = source.module
    optimizer = _optimizer(run, settings)
    average = None
    if prepare:
        average = weight_average(run)
        module = compile_for(run, module, epochs=settings.epochs, second_order=second_order)
        module, optimizer = run.accelerator.prepare(module, optimizer)
    journal = Journal(run.folder if run.writes else None)

    def noted(indices: Indices, epoch: int) -> tuple[Tensor, Tensor]:
        batch = source.batch(indices, epoch)
        run.clock.start_training()
        return batch

    return Task(
        model=module,
        optimizer=optimizer,
        images=len(run.manifest.split("train")),
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        seed=run.config.seed,
        patience=run.config.patience,
        clip_norm=settings.clip_norm,
        objective=objective(run),
        penalty=penalty(run),
        after_step=average.update if average else None,
        averaged=average.in_place if average else nullcontext,
        second_order=second_order,
        precision=run.runtime.training,
        prefetch=on_gpu,
        batch=noted,
        evaluate=lambda: _agreed_scores(run, source),
        multiplier=settings.schedule_over(len(run.manifest.split("train"))),
        set_rate=set_lr,
        set_mode=lambda size: set_train_mode(run.model, order, smallest_batch=size),
        on_best=keeper,
        on_epoch=lambda row: journal.write(**row),
    )


def _optimizer(run: Run, settings: Settings) -> torch.optim.Optimizer:
    """A new optimizer over what trains, fused on a GPU."""
    trainable = {name for name, p in run.model.named_parameters() if p.requires_grad}
    groups = param_groups(
        run.model,
        weight_decay=settings.weight_decay,
        layer_decay=settings.layer_decay,
        trainable=trainable,
        lr=settings.lr,
    )
    return create_optimizer(
        settings.optimizer,
        groups,
        lr=settings.lr,
        weight_decay=settings.weight_decay,
        options=settings.optimizer_options,
        fused=run.runtime.on_gpu,
    )


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

"""A run as the training loop's task: the optimizer, the source of batches, the regularizers, validation."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from tl_kit.finetuning.batch_sources import Source, agreed_scores
from tl_kit.finetuning.compilation import compile_now
from tl_kit.finetuning.kept_weights import BestKeeper
from tl_kit.finetuning.losses import class_order, label_weight, objective, penalty, weight_average
from tl_kit.finetuning.run import Run
from tl_kit.finetuning.saved_state import Saver, changing_names
from tl_kit.finetuning.settings import Settings, bare_names
from tl_kit.freezing.train_mode import set_train_mode
from tl_kit.optimization.optimizers import create_optimizer, needs_second_order
from tl_kit.optimization.param_groups import param_groups
from tl_kit.optimization.schedules import set_lr
from tl_kit.storage.metrics_log import Journal
from tl_kit.training.averaging import WeightAverage
from tl_kit.training.rollback import Rollback
from tl_kit.training.stateful import OptimizerState, RandomState, TensorState
from tl_kit.training.task import FitResult, Indices, Parts, Task

__all__ = ["build_task", "groups_of", "noted"]


def build_task(
    run: Run, order: list[str], settings: Settings, source: Source, keeper: BestKeeper, *, prepare: bool = True
) -> Task:
    """What the loop needs. Without ``prepare`` it is a trial: nothing is distributed, compiled, averaged or noted."""
    on_gpu, second_order = run.runtime.on_gpu, needs_second_order(settings.optimizer)
    module: nn.Module = source.module
    optimizer = _new_optimizer(run, settings)
    average, parts = None, Parts()
    if prepare:
        average = weight_average(run)
        module = compile_now(run, module, epochs=settings.epochs, optimizer=settings.optimizer)
        module, optimizer = run.accelerator.prepare(module, optimizer)
        _register(run, optimizer, average, keeper)
        run.parts["images of a pass"] = parts
        run.rollback = _rollback(run)
    journal = Journal(run.folder if run.writes else None)
    return Task(
        model=module,
        optimizer=optimizer,
        images=len(run.manifest.split("train")),
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        seed=run.config.seed,
        patience=settings.patience,
        clip_norm=settings.clip_norm,
        order=class_order(run, settings.batch_size),
        select=settings.select,
        objective=objective(run),
        weigh=label_weight(run),
        parts=parts,
        penalty=penalty(run),
        after_step=average.update if average else None,
        averaged=average.in_place if average else nullcontext,
        second_order=second_order,
        precision=lambda: run.runtime.training(),
        prefetch=on_gpu,
        batch=noted(run, source),
        evaluate=lambda: agreed_scores(run, source),
        multiplier=settings.schedule_over(len(run.manifest.split("train"))),
        set_rate=run.rollback.set_rate if run.rollback is not None and prepare else set_lr,
        set_mode=lambda size: set_train_mode(run.model, order, smallest_batch=size, batchnorm=settings.batchnorm),
        on_best=keeper,
        on_epoch=lambda row: journal.write(**row),
        on_step=_on_step(run, Saver(run, settings)) if prepare else None,
    )


def _register(run: Run, optimizer: torch.optim.Optimizer, average: WeightAverage | None, keeper: BestKeeper) -> None:
    """Name what changes as the run trains: a saved state holds it."""
    names = changing_names(run)
    run.parts["model"] = TensorState(run.model, names)
    run.parts["optimizer"] = OptimizerState(optimizer)
    run.parts["best"] = keeper
    run.parts["random"] = RandomState(run.runtime.device)
    if average is not None:
        run.parts["average"] = TensorState(average.module, names)


def _rollback(run: Run) -> Rollback | None:
    """Where the run may go back to a good state: it asks for that, or trains in a precision that may be too low."""
    low = run.runtime.train_precision == "bf16"
    if run.config.on_nan != "rollback" and not low:
        return None

    def widen() -> bool:
        before, run.runtime = run.runtime, replace(run.runtime, train_precision="fp32")
        return before.train_precision != "fp32"

    found = Rollback(run.parts, halve=run.config.on_nan == "rollback", widen=widen, config=run.config.rollback)
    run.parts["rollback"] = found
    return found


def _on_step(run: Run, save: Saver) -> Callable[[FitResult], None]:
    """Keep a good state first: a saved one holds it."""
    rollback = run.rollback
    if rollback is None:
        return save

    def on_step(result: FitResult) -> None:
        rollback.on_step(result)
        save(result)

    return on_step


def noted(run: Run, source: Source) -> Callable[[Indices, int], tuple[Tensor, Tensor]]:
    """The source's batches; the run's clock notes when the first of them is there."""

    def batch(indices: Indices, epoch: int) -> tuple[Tensor, Tensor]:
        found = source.batch(indices, epoch)
        run.clock.start_training()
        return found

    return batch


def _new_optimizer(run: Run, settings: Settings) -> torch.optim.Optimizer:
    """A new optimizer over what trains, fused on a GPU."""
    trainable = {name for name, p in run.model.named_parameters() if p.requires_grad}
    return create_optimizer(
        settings.optimizer,
        groups_of(run, settings, trainable),
        lr=settings.lr,
        weight_decay=settings.weight_decay,
        options=settings.optimizer_options,
        fused=run.runtime.on_gpu,
    )


def groups_of(run: Run, settings: Settings, names: Collection[str]) -> list[dict[str, Any]]:
    """The optimizer's groups for these parameters, at the run's rates and decays."""
    return param_groups(
        run.model,
        weight_decay=settings.weight_decay,
        layer_decay=settings.layer_decay,
        trainable=names,
        lr=settings.lr,
        decays={} if settings.bare_decay is None else dict.fromkeys(bare_names(run), settings.bare_decay),
    )

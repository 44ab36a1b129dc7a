"""A run as the training loop's task: optimizer, batches, loss, validation, no callbacks yet; and ``torch.compile``.

A network is compiled where that pays back within the run, or where the user asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from torch import nn

from tl_kit.config import RuntimeConfig
from tl_kit.data.manifest import labels_of
from tl_kit.errors import ConfigError, first_line
from tl_kit.finetuning.batch_sources import Source, agreed_scores
from tl_kit.finetuning.losses import build_loss
from tl_kit.finetuning.run import Run
from tl_kit.finetuning.settings import Settings, bare_names, head_names
from tl_kit.freezing.adapters import Adapters
from tl_kit.freezing.train_mode import set_train_mode
from tl_kit.machine.runtime import compile_from
from tl_kit.optimization.optimizers import create_optimizer, needs_second_order
from tl_kit.optimization.param_groups import param_groups
from tl_kit.training.batch_order import balanced_batches, even_batches
from tl_kit.training.task import Indices, Task

__all__ = ["build_task", "compile_errors", "compile_now", "groups_of", "pays_back", "set_source"]


def build_task(run: Run, order: list[str], settings: Settings, source: Source) -> Task:
    """The loop's task for this source. ``order`` is the forward order of the model's modules."""
    images = len(run.manifest.split("train"))
    return Task(
        model=source.module,
        optimizer=_new_optimizer(run, settings, source.adapters),
        order=_image_order(run, settings.batch_size),
        batch=source.batch,
        give_up=source.give_up,
        evaluate=partial(agreed_scores, run, source),
        schedule=settings.schedule_over(images),
        set_mode=partial(_set_mode, run, order, settings.batchnorm, source.adapters),
        epochs=settings.epochs,
        patience=settings.patience,
        clip_norm=settings.clip_norm,
        loss=build_loss(run),
        select=settings.select,
        keep_last=settings.keep_epoch == "last",
        second_order=needs_second_order(settings.optimizer),
        precision=run.runtime.training,
        prefetch=run.runtime.on_gpu,
        loss_lag=run.config.runtime.loss_lag if run.runtime.on_gpu else 0,
    )


def _set_mode(run: Run, order: list[str], batchnorm: str, adapters: Adapters | None, size: int) -> None:
    """Put the model, and its adapters, in train mode; no batch has fewer than ``size`` images."""
    set_train_mode(run.model, order, smallest_batch=size, batchnorm=batchnorm)
    if adapters is not None:
        adapters.follow_modes()


def set_source(task: Task, run: Run, source: Source) -> None:
    """Let the task train on another source; its model is the caller's to set."""
    task.batch, task.give_up = source.batch, source.give_up
    task.evaluate = partial(agreed_scores, run, source)


def _image_order(run: Run, batch_size: int) -> Callable[[int], list[Indices]]:
    """The batches of each epoch: every image once or, under the balanced sampler, every class equally often."""
    labels = labels_of(run.manifest.split("train"))
    if run.balance.value == "sampler":
        return lambda epoch: balanced_batches(labels, batch_size, seed=run.config.seed, epoch=epoch)
    return lambda epoch: even_batches(len(labels), batch_size, seed=run.config.seed, epoch=epoch)


def _new_optimizer(run: Run, settings: Settings, adapters: Adapters | None) -> torch.optim.Optimizer:
    """A new optimizer over what trains, fused on a GPU."""
    trainable = {name for name, p in run.model.named_parameters() if p.requires_grad}
    return create_optimizer(
        settings.optimizer,
        groups_of(run, settings, trainable, adapters=adapters),
        lr=settings.lr,
        weight_decay=settings.weight_decay,
        options=settings.optimizer_options,
        fused=run.runtime.on_gpu,
    )


def groups_of(
    run: Run, settings: Settings, names: Collection[str], *, adapters: Adapters | None = None
) -> list[dict[str, Any]]:
    """The optimizer's groups for these parameters, or their adapters, at the run's rates and decays."""
    groups = param_groups(
        run.model,
        weight_decay=settings.weight_decay,
        layer_decay=settings.layer_decay,
        trainable=names,
        lr=settings.lr,
        decays={} if settings.bare_decay is None else dict.fromkeys(bare_names(run, settings), settings.bare_decay),
        factors={} if settings.head_factor == 1 else dict.fromkeys(head_names(run), settings.head_factor),
    )
    return groups if adapters is None else adapters.in_place_of_weights(groups)


def pays_back(images: int, pixels: int, *, config: RuntimeConfig = RuntimeConfig()) -> bool:
    """True where compilation gains more time than it takes over ``images`` training images of ``pixels``, all epochs.

    Cost and gain both grow with the network, so that images and their size are left: figures that any machine has.
    """
    return images * pixels / config.compile_side**2 > compile_from(config)


def compile_now(run: Run, module: nn.Module, *, epochs: int, optimizer: str) -> nn.Module:
    """The module, compiled for training where the run says so; parameters are shared, evaluation is not compiled.

    Under "auto" that follows from the run's length and the images' size. Only on a CPU, where cost and gain have been
    measured, for whole models (a tail is too small) of one phase in one process.
    """
    config = run.config.runtime
    if config.compile == "on" or (config.compile == "auto" and _auto(run, module, epochs, optimizer)):
        return _compile(module, config)
    return module


def _auto(run: Run, module: nn.Module, epochs: int, optimizer: str) -> bool:
    config = run.config.runtime
    on_cpu = run.runtime.device.type == "cpu" and config.mode != "plain" and run.accelerator.num_processes == 1
    if not on_cpu or module is not run.model or run.policy.grows or needs_second_order(optimizer):
        return False
    _, height, width = run.preprocessing.input_size
    if not pays_back(epochs * len(run.manifest.split("train")), height * width, config=config):
        return False
    run.reporter.message("torch.compile: pays back within this run (--compile off turns it off)")
    return True


def _compile(module: nn.Module, config: RuntimeConfig) -> nn.Module:
    return cast(nn.Module, torch.compile(module, backend=config.compile_backend))


@contextmanager
def compile_errors() -> Iterator[None]:
    """Turn the errors of a model that torch cannot compile, or of a missing compiler, into a ConfigError."""
    try:
        yield
    except RuntimeError as error:
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        raise ConfigError(
            f"torch.compile cannot compile this model here ({first_line(error)}): use --compile off"
        ) from error

"""``torch.compile`` in a run: used where it pays back within the run, or where the user asks for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import cast

import torch
from torch import nn

from tl_kit.api.run import Run
from tl_kit.api.saving import saved_history
from tl_kit.config import RuntimeConfig
from tl_kit.errors import ConfigError
from tl_kit.training.task import Task

__all__ = ["compile_errors", "compile_later", "compile_now", "pays_back"]


def pays_back(images: int, *, images_per_second: float, config: RuntimeConfig = RuntimeConfig()) -> bool:
    """Whether compilation gains more time over ``images`` training images, at the present rate, than it takes."""
    return images / images_per_second * config.compile_gain > config.compile_seconds


def compile_now(run: Run, module: nn.Module) -> nn.Module:
    """The module compiled for training where the run says "on"; parameters are shared, evaluation is not compiled."""
    config = run.config.runtime
    return _compile(module, config) if config.compile == "on" else module


def compile_later(run: Run, task: Task) -> Task:
    """Under "auto": a task that is compiled after its first epoch, if the epochs that follow pay for it at its rate.

    Only on a CPU, where cost and gain have been measured, and for whole models: a tail is too small.
    """
    config = run.config.runtime
    on_cpu = run.runtime.device.type == "cpu" and config.mode != "plain"
    if config.compile != "auto" or not on_cpu or task.second_order or task.model is not run.model:
        return task
    rates = [row["images_per_second"] for row in saved_history(run)]  # a run taken up again decides as it had decided

    def noting(row: Mapping[str, float]) -> None:
        rates.append(row["images_per_second"])
        task.on_epoch(row)

    return replace(task, on_epoch=noting, phase=_phase(run, task, rates, noting))


def _phase(
    run: Run, task: Task, rates: list[float], noting: Callable[[Mapping[str, float]], None]
) -> Callable[[int], Task]:
    current = replace(task, on_epoch=noting)
    asked = False

    def phase(epoch: int) -> Task:
        nonlocal current, asked
        left = (task.epochs - epoch) * task.images
        first, asked = epoch == 1 and not asked, asked or epoch == 1
        if first and pays_back(left, images_per_second=rates[0], config=run.config.runtime):
            run.reporter.message("torch.compile: pays back within this run (--compile off turns it off)")
            current = replace(current, model=_compile(task.model, run.config.runtime))
        return current

    return phase


def _compile(module: nn.Module, config: RuntimeConfig) -> nn.Module:
    return cast(nn.Module, torch.compile(module, backend=config.compile_backend))


@contextmanager
def compile_errors() -> Iterator[None]:
    """A model that torch cannot compile, or a machine without a compiler, as a ConfigError."""
    try:
        yield
    except RuntimeError as error:
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(f"torch.compile cannot compile this model here ({reason}): use --compile off") from error

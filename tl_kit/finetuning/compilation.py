"""``torch.compile`` in a run: used where it pays back within the run, or where the user asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import nn

from tl_kit.config import RuntimeConfig
from tl_kit.errors import ConfigError, first_line
from tl_kit.finetuning.run import Run
from tl_kit.machine.runtime import compile_from
from tl_kit.optimization.optimizers import needs_second_order

__all__ = ["compile_errors", "compile_now", "pays_back"]


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

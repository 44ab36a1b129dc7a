"""``torch.compile`` in a run: used where it pays back within the run, or where the user asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import nn

from tl_kit.api.run import Run
from tl_kit.config import RuntimeConfig
from tl_kit.errors import ConfigError

__all__ = ["compile_errors", "compile_for", "pays_back"]

# A training step's forward, backward and update, in forward passes: EfficientNet-Lite0 trains at 42 images a second on
# 2 cores and runs forward at 177, both in fp32.
_STEP_IN_FORWARD_PASSES = 4.2


def pays_back(images: int, *, images_per_second: float, config: RuntimeConfig = RuntimeConfig()) -> bool:
    """Whether compilation gains more time over ``images`` training images than it takes.

    ``images_per_second``: of a forward pass in fp32, without compilation.
    """
    seconds = images * _STEP_IN_FORWARD_PASSES / images_per_second
    return seconds * config.compile_gain > config.compile_seconds


def compile_for(run: Run, module: nn.Module, *, epochs: int, second_order: bool) -> nn.Module:
    """The module compiled for training, or as it is; parameters are shared, and evaluation runs the plain model.

    With ``compile`` "auto", only on a CPU and for a whole model: the cost and the gain have been measured there, and a
    tail is too small. Raises ConfigError for "on" with an optimizer that differentiates gradients again.
    """
    config = run.config.runtime
    if config.compile == "on" and second_order:
        raise ConfigError("--compile on: compiled models have no second derivatives, which this --optimizer needs")
    if config.compile == "off" or config.mode == "plain":
        return module
    if config.compile == "auto":
        whole = module is run.model and run.runtime.device.type == "cpu" and not second_order
        if not whole or run.decision is None:
            return module
        images = epochs * len(run.manifest.split("train"))
        if not pays_back(images, images_per_second=run.decision.images_per_second["fp32"], config=config):
            return module
        run.reporter.message("torch.compile: pays back within this run (--compile off turns it off)")
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

"""The precision of inference: decided by what the processor has, and the classifier in fp32 whatever it is.

bf16 halves the memory traffic, and has eight bits of mantissa: enough for features, too few for probabilities. Which
precision a run takes follows from the processor and the network alone, never from how long anything takes: the same
command gives the same numbers on a busy machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from tl_kit.config import RuntimeConfig
from tl_kit.machine.processor import gpu_has_bf16, processor
from tl_kit.machine.runtime import PRECISIONS, Runtime

__all__ = ["Decision", "choose_precision", "full_precision", "precision_report", "recorded_precision"]


@dataclass(frozen=True)
class Decision:
    """The precision of inference, and why."""

    precision: str
    reason: str

    def summary(self) -> str:
        """One line for people."""
        return f"precision of inference: {self.precision} ({self.reason})"


def choose_precision(model: nn.Module, runtime: Runtime, config: RuntimeConfig) -> tuple[Runtime, Decision | None]:
    """The runtime with its precision settled for one model, and the reason; None where the configuration names one.

    bf16 on a GPU that has it and on a CPU with AMX-BF16. With AVX512-BF16 alone it is for networks of depthwise
    convolutions with BatchNorm, which wait for memory: docs/reproducibility.md has the figures.
    """
    if config.precision != "auto" or config.mode == "plain":
        return runtime, None
    decision = _decide(model, runtime)
    return replace(runtime, precision=decision.precision), decision


def recorded_precision(
    recorded: str, model: nn.Module, runtime: Runtime, config: RuntimeConfig
) -> tuple[Runtime, str | None]:
    """The runtime in the precision in which a model was scored, and a line where this device does otherwise.

    A precision that the configuration names is taken. A CPU with AVX-512 imitates bf16, with its rounding, at up to
    four times the time; one without takes ten times as long for numbers of its own, and runs in fp32, as a GPU without
    bf16 does. ``recorded`` "auto": as a new run.
    """
    if config.precision != "auto" or config.mode == "plain":
        return runtime, None
    if recorded not in PRECISIONS:
        return choose_precision(model, runtime, config)[0], None
    found = replace(runtime, precision=recorded)
    if recorded == "fp32" or _has_bf16(runtime):
        return found, None
    if runtime.device.type == "cpu" and processor().avx512:
        return found, "recorded in bf16, which this processor imitates: the same rounding, at up to 4 times the time"
    here = "this processor" if runtime.device.type == "cpu" else f"this device ({runtime.device.type})"
    return replace(runtime, precision="fp32"), (
        f"recorded in bf16, which {here} has not: computed in fp32, and probabilities may differ by some thousandths"
    )


def precision_report(runtime: Runtime) -> str:
    """The choice of :func:`choose_precision` on this machine, in a line."""
    if _has_bf16(runtime) and runtime.device.type == "cpu" and not processor().amx_bf16:
        return f"precision of inference: bf16 for networks of depthwise convolutions, else fp32 ({_reason(runtime)})"
    return f"precision of inference: {'bf16' if _has_bf16(runtime) else 'fp32'} ({_reason(runtime)})"


def _decide(model: nn.Module, runtime: Runtime) -> Decision:
    if not _has_bf16(runtime):
        return Decision("fp32", _reason(runtime))
    if runtime.device.type == "cpu" and not processor().amx_bf16 and not _waits_for_memory(model):
        return Decision("fp32", f"{_reason(runtime)}, which speeds up depthwise convolutions alone")
    return Decision("bf16", _reason(runtime))


def _has_bf16(runtime: Runtime) -> bool:
    """True where the device multiplies in bf16 itself. Apple's GPUs and ARM are untested."""
    kind = runtime.device.type
    return gpu_has_bf16() if kind == "cuda" else kind == "cpu" and processor().bf16 is not None


def _reason(runtime: Runtime) -> str:
    kind = runtime.device.type
    if kind == "cpu":
        return f"this processor has {processor().bf16 or 'neither AVX512-BF16 nor AMX-BF16'}"
    return f"this GPU has {'bf16' if _has_bf16(runtime) else 'no bf16'}" if kind == "cuda" else f"on {kind} always"


def _waits_for_memory(model: nn.Module) -> bool:
    """True for depthwise convolutions with BatchNorm: a network bound by memory traffic rather than arithmetic."""
    modules = list(model.modules())
    depthwise = any(isinstance(m, nn.Conv2d) and m.groups == m.in_channels > 1 for m in modules)
    return depthwise and any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in modules)


@contextmanager
def full_precision(modules: Sequence[nn.Module], device: torch.device) -> Iterator[None]:
    """While the context lasts, these modules run in fp32 under any autocast: inputs are widened, autocast is off.

    Outside an autocast, nothing changes.
    """
    kind = device.type

    def enter(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not torch.is_autocast_enabled(kind):
            return None
        torch.set_autocast_enabled(kind, False)
        return tuple(arg.float() if isinstance(arg, Tensor) else arg for arg in args)

    hooks = []
    was_enabled = torch.is_autocast_enabled(kind)

    def leave(_module: nn.Module, _args: tuple[Any, ...], _output: Any) -> None:
        torch.set_autocast_enabled(kind, torch.is_autocast_enabled(kind) or was_enabled)

    try:
        for module in modules:
            hooks += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
        yield
    finally:
        for hook in hooks:
            hook.remove()

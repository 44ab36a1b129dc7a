"""The precision of inference: chosen by the processor's features; the classifier always runs in fp32.

bf16 halves the memory traffic, and has eight bits of mantissa: enough for features, too few for probabilities. The
choice depends on the processor and the network alone, never on measured times, so the same command gives the same
numbers on a busy machine.
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
    """The precision of inference, with the reason."""

    precision: str
    reason: str

    def summary(self) -> str:
        """A line for the user."""
        return f"precision of inference: {self.precision} ({self.reason})"


def choose_precision(model: nn.Module, runtime: Runtime, config: RuntimeConfig) -> tuple[Runtime, Decision | None]:
    """The runtime with the precision for one model, and the decision; None if the configuration names a precision.

    bf16 is used on a GPU that has it and on a CPU with AMX-BF16. With AVX512-BF16 alone it is used for networks of
    depthwise convolutions with BatchNorm, which are bound by memory: docs/reproducibility.md has the figures.
    """
    if config.precision != "auto" or config.mode == "plain":
        return runtime, None
    decision = _decide(model, runtime)
    return replace(runtime, precision=decision.precision), decision


def recorded_precision(
    recorded: str, model: nn.Module, runtime: Runtime, config: RuntimeConfig
) -> tuple[Runtime, str | None]:
    """The runtime in the precision in which a model was scored, and a line if this device must deviate from it.

    A precision that the configuration names is used. A CPU with AVX-512 emulates bf16, with the same rounding, in up to
    four times the time. Without AVX-512, emulation takes ten times as long and rounds differently, so fp32 is used, as
    on a GPU without bf16. ``recorded`` "auto": as in a new run.
    """
    if config.precision != "auto" or config.mode == "plain":
        return runtime, None
    if recorded not in PRECISIONS:
        return choose_precision(model, runtime, config)[0], None
    found = replace(runtime, precision=recorded)
    if recorded == "fp32" or _has_bf16(runtime):
        return found, None
    if runtime.device.type == "cpu" and processor().avx512:
        return found, "recorded in bf16, which this processor emulates: the same rounding, at up to 4 times the time"
    here = "this processor" if runtime.device.type == "cpu" else f"this device ({runtime.device.type})"
    return replace(runtime, precision="fp32"), (
        f"recorded in bf16, which {here} lacks: computed in fp32; probabilities may differ by some thousandths"
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
    """True if the device multiplies in bf16 in hardware. Apple's GPUs and ARM are untested."""
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
    """Within the context, these modules run in fp32 under any autocast: inputs are converted, autocast is off.

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

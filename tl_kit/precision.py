"""The classifier in full precision inside a bf16 forward pass: eight bits of mantissa are too few for probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["full_precision"]


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

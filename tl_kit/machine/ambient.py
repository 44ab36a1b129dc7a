"""torch's global switches: reset while tl-kit works, and restored afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch

__all__ = ["undisturbed"]


@contextmanager
def undisturbed() -> Iterator[None]:
    """Reset torch to its initial state: gradients on, no inference mode or autocast, new tensors float32 on the CPU.

    Also a decorator. Under torch.no_grad() nothing would train, and tensors made in torch.inference_mode() can never
    train. torch.set_default_dtype and set_default_device would change every new tensor, and with
    numpy.seterr(all="raise") the first softmax that underflows raises. Switches that change no value (deterministic
    algorithms) are kept.
    """
    dtype = torch.get_default_dtype()
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"))
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if _default_device() != "cpu":
            stack.enter_context(torch.device("cpu"))
        if dtype != torch.float32:
            stack.callback(torch.set_default_dtype, dtype)
            torch.set_default_dtype(torch.float32)
        yield


def _default_device() -> str:
    """The type of the device on which new tensors are made."""
    try:
        return torch.get_default_device().type
    except AttributeError:  # torch 2.6, after set_default_device(None) has been called
        return "cpu"

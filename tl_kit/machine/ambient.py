"""torch's global switches as a caller has set them, put aside while tl-kit works and put back afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch

__all__ = ["undisturbed"]


@contextmanager
def undisturbed() -> Iterator[None]:
    """With gradients, without inference mode or autocast, new tensors float32 and on the CPU, as torch starts.

    Also a decorator. Under torch.no_grad() nothing would train, and what torch.inference_mode() makes never can;
    torch.set_default_dtype and set_default_device would change every new tensor, and numpy.seterr(all="raise") ends in
    the first softmax that underflows. Switches that change no value (deterministic algorithms) stay.
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
    """The kind of the device on which new tensors are made."""
    try:
        return torch.get_default_device().type
    except AttributeError:  # torch 2.6, once set_default_device(None) has been called
        return "cpu"

"""Losses that are read some steps late: a GPU's queue of work then never runs dry while the CPU waits for a number."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from tl_kit.errors import NonFiniteError
from tl_kit.training.task import Progress

__all__ = ["ADVICE", "LateLosses", "check_loss"]

ADVICE = "try a lower --lr, or --on-nan rollback"


def check_loss(value: float, step: int) -> None:
    """Raises NonFiniteError for the loss of ``step`` (from 0) where it is not finite."""
    if not math.isfinite(value):
        raise NonFiniteError(f"the loss is {value} at step {step + 1}: {ADVICE}")


class LateLosses:
    """An epoch's losses, summed up in ``progress`` as they are read: each when ``lag`` later steps are under way.

    ``last`` is the one that was read last, NaN before the first. With a lag of 0 each is read at once. Before weights
    are saved or copied, :meth:`read` must be called: they may come from a loss that is not finite.
    """

    def __init__(self, progress: Progress, *, lag: int) -> None:
        self.progress, self.lag = progress, lag
        self.last = math.nan
        self._waiting: deque[tuple[int, Callable[[], float], int]] = deque()

    def add(self, step: int, loss: float | Tensor, images: int) -> None:
        """The mean loss of ``images`` in ``step``. Raises NonFiniteError for one that is read and is not finite."""
        self._waiting.append((step, _reader_of(loss), images))
        self._read(self.lag)

    def read(self) -> None:
        """Wait for all losses so far. Raises NonFiniteError for the first that is not finite."""
        self._read(0)

    def _read(self, most: int) -> None:
        while len(self._waiting) > most:
            step, value_of, images = self._waiting.popleft()
            self.last = value_of()
            check_loss(self.last, step)
            self.progress.loss += self.last * images


def _reader_of(loss: float | Tensor) -> Callable[[], float]:
    """Reads a loss, and waits for no later work: ``loss.item()`` would wait for all that is queued by then."""
    if not isinstance(loss, Tensor) or not loss.is_cuda:
        return partial(float, loss)
    held = torch.empty((), dtype=loss.dtype, pin_memory=True)
    held.copy_(loss, non_blocking=True)
    there = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
    there.record()

    def value() -> float:
        there.synchronize()
        return float(held)

    return value

"""What a fit is given, and what it notes as it goes: no step is taken here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["FitResult", "Indices", "Parts", "Progress", "Task"]

Indices = NDArray[np.int64]


@dataclass
class Parts:
    """The most images of one forward and backward pass; None: all of a batch."""

    rows: int | None = None

    def state(self) -> int | None:
        """For a run that is taken up again: sums in other parts are rounded otherwise."""
        return self.rows

    def load_state(self, state: Any) -> None:
        if state is not None and (not isinstance(state, int) or state < 1):
            raise ValueError(f"parts of {state!r} images")
        self.rows = state


@dataclass(frozen=True, kw_only=True)
class Task:
    """All that one fit needs.

    ``batch(indices, epoch)`` gives (inputs, labels) on the device; ``evaluate()`` the validation metrics, or None
    without validation images; ``multiplier(step, history)`` the learning rate's factor, given
    the validation NLL of each epoch so far; ``set_mode(size)`` puts the model in
    the policy's train mode, for batches of at least so many images; ``on_epoch(row)`` is called after each epoch,
    and ``on_best(epoch, metrics)`` after each that is the best so far.

    Labels are class indices (n,) or, where images are mixed, probabilities (n, classes); ``objective(logits, labels)``
    is the loss that is shown, to which ``penalty()`` is added before the gradient is taken. ``after_step(step)`` comes
    after each update, steps counted from 1; within ``averaged()`` the model holds the weights to evaluate and to keep.

    ``order(epoch)`` gives the epoch's batches of indices, as many as there are without it, which is every image once;
    an index of ``images`` t + i is one more use of image i. ``select`` names the validation metric that decides which
    epoch is the best.

    ``phase(epoch)``, asked before every epoch, gives the task from there on: what trains may change, not the optimizer.

    ``on_step(result)`` is called wherever a fit can be taken up again: after every step, and after every epoch.

    ``weigh(labels)`` is how much these labels count in the mean that ``objective`` is, their number unless it weights
    them; None where batches cannot be divided. ``parts`` bounds the images of one forward pass; where memory runs out
    it shrinks, for good.

    ``precision()`` is the context of the forward pass. With ``prefetch``, a thread prepares the next batch while this
    one is trained on: right where the device is not the CPU that prepares it.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    images: int
    epochs: int
    batch_size: int
    seed: int
    patience: int
    clip_norm: float
    batch: Callable[[Indices, int], tuple[Tensor, Tensor]]
    evaluate: Callable[[], Mapping[str, float] | None]
    multiplier: Callable[[int, Sequence[float]], float]
    set_rate: Callable[[torch.optim.Optimizer, float], None]
    set_mode: Callable[[int], None]
    on_best: Callable[[int, Mapping[str, float] | None], None]
    on_epoch: Callable[[Mapping[str, float]], None]
    order: Callable[[int], list[Indices]] | None = None
    select: str = "accuracy"
    objective: Callable[[Tensor, Tensor], Tensor] = functional.cross_entropy
    penalty: Callable[[], Tensor] | None = None
    weigh: Callable[[Tensor], float] | None = len
    parts: Parts = field(default_factory=Parts)
    after_step: Callable[[int], None] | None = None
    averaged: Callable[[], AbstractContextManager[None]] = nullcontext
    phase: Callable[[int], Task] | None = None
    on_step: Callable[[FitResult], None] | None = None
    second_order: bool = False
    precision: Callable[[], AbstractContextManager[None]] = nullcontext
    prefetch: bool = False


@dataclass
class Progress:
    """The epoch under way: steps done, the sum of their images' losses, seconds, and those spent waiting for data."""

    steps: int = 0
    loss: float = 0.0
    seconds: float = 0.0
    waited: float = 0.0


@dataclass
class FitResult:
    """What a fit did. ``epochs`` counts finished ones; ``best_epoch`` is from 1, 0 if no epoch was finished."""

    epochs: int = 0
    best_epoch: int = 0
    best: Mapping[str, float] | None = None
    interrupted: bool = False
    history: list[dict[str, float]] = field(default_factory=list)
    progress: Progress = field(default_factory=Progress)

"""A fit's task, its result, and the callbacks that follow it; no step is taken here."""

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

from tl_kit.training.stateful import Stateful

__all__ = ["Callback", "FitResult", "Indices", "Loss", "Microbatch", "Progress", "Rate", "Task"]

Indices = NDArray[np.int64]
Rate = Callable[[int, Sequence[float]], float]


class Callback:
    """Follows a fit; ``training.loop`` draws when each event comes. A callback overrides the methods that it needs.

    One that carries something from step to step has ``state`` and ``load_state`` too (``training.stateful``), and
    stands in ``Task.parts``.
    """

    def on_phase(self, task: Task, epoch: int) -> None:
        """Before each epoch, from 0. More may train from here on: ``task`` may be changed, but not its optimizer."""

    def keeps(self, step: int) -> bool:
        """True where ``on_step`` saves or copies the weights after this step: all losses are read before it."""
        return False

    def on_step(self, step: int) -> None:
        """After each update; the first is step 1."""

    def on_epoch(self, result: FitResult) -> None:
        """After each epoch's validation. The model holds the weights that were validated."""

    def on_resumable(self, result: FitResult) -> None:
        """Wherever the fit can be taken up again from the state it has now. The model holds the weights that train."""

    def state(self) -> Any:
        """The state from which ``load_state`` makes a new callback equal to this one."""

    def load_state(self, state: Any) -> None:
        """Go on from a state. Raises ValueError, TypeError or KeyError for a state of another kind."""


@dataclass
class Microbatch:
    """The most images of one forward and backward pass; None: all of a batch.

    ``trials``: how often several processes have agreed on it since more layers began to train
    (:func:`tl_kit.training.microbatches.settle_parts`).
    """

    rows: int | None = None
    trials: int = 0

    def state(self) -> int | None:
        """For a run that is taken up again: sums in other parts are rounded otherwise."""
        return self.rows

    def load_state(self, state: Any) -> None:
        if state is not None and (not isinstance(state, int) or state < 1):
            raise ValueError(f"parts of {state!r} images")
        self.rows = state


@dataclass(frozen=True, kw_only=True)
class Loss:
    """``objective(logits, labels)`` is the loss that is shown; ``penalty()`` is added before the gradient is taken.

    Labels are class indices (n,) or, where images are mixed, probabilities (n, classes). ``weigh(labels)`` is the
    weight of these labels in the mean that ``objective`` takes, which is their number unless it weights them; None
    where a batch's loss is no mean over its images, so that batches cannot be divided.
    """

    objective: Callable[[Tensor, Tensor], Tensor] = functional.cross_entropy
    penalty: Callable[[], Tensor] | None = None
    weigh: Callable[[Tensor], float] | None = len


@dataclass(kw_only=True)
class Task:
    """A fit's task: model, optimizer, batches, loss, schedule, validation, and when training ends.

    ``order(epoch)`` gives the epoch's batches of indices, the same number in every epoch, and ``batch(indices, epoch)``
    the (inputs, labels) of one on the device. With ``prefetch``, a thread prepares the next batch while this one is
    trained on: right where the device is not the CPU that prepares it. Each loss is read ``loss_lag`` steps after its
    own (:mod:`tl_kit.training.late_losses`). ``give_up()`` frees memory of the device that training can do without,
    and is False if there is none.

    ``schedule(step, history)`` is the learning rate's factor, given the validation NLL of each epoch so far.
    ``set_mode(size)`` puts the model in its train mode, for batches of at least so many images. ``precision()`` is the
    context of the forward pass.

    ``evaluate()`` gives the validation metrics, or None without validation images; ``select`` names the one that
    decides which epoch is the best. With ``keep_last`` the last of all ``epochs`` counts as the best. Within
    ``averaged()`` the model holds the weights to evaluate and to keep.

    ``callbacks`` hear each event in this order. ``parts`` are by name all that changes as the fit goes: together with
    the result, their states are all that is needed to take it up again.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    order: Callable[[int], list[Indices]]
    batch: Callable[[Indices, int], tuple[Tensor, Tensor]]
    evaluate: Callable[[], Mapping[str, float] | None]
    schedule: Rate
    set_mode: Callable[[int], None]
    epochs: int
    patience: int
    clip_norm: float
    loss: Loss = Loss()
    select: str = "accuracy"
    keep_last: bool = False
    averaged: Callable[[], AbstractContextManager[None]] = nullcontext
    second_order: bool = False
    precision: Callable[[], AbstractContextManager[None]] = nullcontext
    prefetch: bool = False
    loss_lag: int = 0
    give_up: Callable[[], bool] = lambda: False
    microbatch: Microbatch = field(default_factory=Microbatch)
    callbacks: Sequence[Callback] = ()
    parts: Mapping[str, Stateful] = field(default_factory=dict)


@dataclass
class Progress:
    """The epoch under way: steps done, the sum of their images' losses, seconds, and those spent waiting for data."""

    steps: int = 0
    loss: float = 0.0
    seconds: float = 0.0
    waited: float = 0.0


@dataclass
class FitResult:
    """Result of a fit. ``epochs`` counts finished ones; ``best_epoch`` is the kept one, from 1, 0 if there is none."""

    epochs: int = 0
    best_epoch: int = 0
    best: Mapping[str, float] | None = None
    interrupted: bool = False
    history: list[dict[str, float]] = field(default_factory=list)
    progress: Progress = field(default_factory=Progress)

    def __post_init__(self) -> None:
        self.unread: Callable[[], None] | None = None

    def read_losses(self) -> None:
        """Wait for the losses of all steps so far. Raises NonFiniteError where one is not finite."""
        if self.unread is not None:
            self.unread()

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> FitResult:
        """The result of which ``dataclasses.asdict`` made ``saved``. Raises TypeError or KeyError for another tree."""
        return cls(**{**saved, "progress": Progress(**saved["progress"])})

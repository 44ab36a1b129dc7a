"""``--on-nan rollback``: back to the last state that was good, at half the rate, instead of an end.

A state is good at the end of an epoch whose loss, weights and validation were finite; the one before the first step
counts as good. In a run that trains in bf16, the first answer is fp32 at the same rate.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from accelerate import Accelerator
from torch import Tensor

from tl_kit.config import RollbackConfig
from tl_kit.errors import NonFiniteError
from tl_kit.optimization.optimizers import forget
from tl_kit.reporting import SILENT, Reporter
from tl_kit.training.loop import fit
from tl_kit.training.stateful import OptimizerState, Stateful
from tl_kit.training.task import Callback, FitResult, Rate, Task

__all__ = ["Rollback", "fit_again"]

# The best epoch is never newer than the last good state; what was gone back to is not undone, and memory is no larger.
_LEFT = ("best", "rollback", "images of a pass")


class Rollback(Callback):
    """The last good state of a fit, in memory, and how often the fit went back to it.

    ``parts`` are the task's, which may still be completed. ``widen()`` makes the training fp32, and is
    False where it is. With ``halve`` False, that is the only answer.
    """

    def __init__(
        self,
        parts: Mapping[str, Stateful],
        *,
        halve: bool,
        widen: Callable[[], bool] = lambda: False,
        config: RollbackConfig = RollbackConfig(),
    ) -> None:
        self.parts, self.halve, self.widen, self.config = parts, halve, widen, config
        self.scale = 1.0
        self.events: list[dict[str, object]] = []
        self.good: dict[str, Any] = {}

    def scaled(self, schedule: Rate) -> Rate:
        """The schedule's factor, times ``factor`` for every time that the fit went back for it."""

        def scaled(step: int, history: Sequence[float]) -> float:
            return schedule(step, history) * self.scale

        return scaled

    def on_resumable(self, result: FitResult) -> None:
        """Keep the state at the end of an epoch."""
        if not result.progress.steps:
            self.keep(result)

    def keep(self, result: FitResult) -> None:
        """Copy the fit's parts: they are good."""
        parts = {name: _copied(part.state()) for name, part in self.parts.items() if name not in _LEFT}
        self.good = {"result": copy.deepcopy(asdict(result)), "parts": parts}

    def answer(self, error: NonFiniteError, reporter: Reporter) -> FitResult:
        """Go back; returns where the fit stands then. Raises the error where that has been tried often enough."""
        if self.widen():
            how = "in fp32 from here on, at the same rate"
        elif self.halve and sum(event["precision"] is None for event in self.events) < self.config.most:
            self.scale *= self.config.factor
            how = f"at {self.scale:g} of the rate from here on"
        else:
            raise NonFiniteError(self._said(str(error))) from error
        result = self._restore()
        reason = str(error).partition(":")[0]
        where = f"the end of epoch {result.epochs}" if result.epochs else "the start"
        self.events.append(
            {
                "reason": reason,
                "to_epoch": result.epochs,
                "rate": self.scale,
                "precision": "fp32" if "fp32" in how else None,
            }
        )
        reporter.message(f"{reason}: back to {where}, {how}")
        return result

    def _said(self, text: str) -> str:
        """An error's text, with what has been tried."""
        if not self.events:
            return text
        reason, _, advice = text.partition(":")
        return f"{reason}, after going back {len(self.events)} times:{advice.replace(', or --on-nan rollback', '')}"

    def _restore(self) -> FitResult:
        for name, state in self.good["parts"].items():
            part = self.parts[name]
            if isinstance(part, OptimizerState):
                forget(part.optimizer)  # what had no state then has one now, and none of it is finite
                part.optimizer.zero_grad(set_to_none=True)
            part.load_state(state)
        return FitResult.from_dict(copy.deepcopy(self.good["result"]))

    def state(self) -> dict[str, object]:
        """Taken up again, a run goes back to the same state as if it had not been interrupted."""
        return {"scale": self.scale, "events": self.events, "good": self.good}

    def load_state(self, state: Any) -> None:
        self.scale, self.events = float(state["scale"]), [dict(event) for event in state["events"]]
        self.good = _copied(state["good"])
        if any(event["precision"] for event in self.events):
            self.widen()


def fit_again(
    task: Task,
    accelerator: Accelerator,
    *,
    rollback: Rollback | None,
    start: FitResult,
    reporter: Reporter = SILENT,
) -> FitResult:
    """:func:`tl_kit.training.loop.fit`, which goes on from the last good state where a number was not finite.

    ``rollback`` is among the task's callbacks, and scales its schedule. Raises NonFiniteError without it, and where
    going back has not helped.
    """
    if rollback is not None and not rollback.good:
        rollback.keep(start)
    while True:
        try:
            return fit(task, accelerator, reporter=reporter, start=start)
        except NonFiniteError as error:
            if rollback is None:
                raise
            start = rollback.answer(error, reporter)


def _copied(value: Any) -> Any:
    """Nested values whose tensors nobody else writes to, on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(item) for item in value)
    return value

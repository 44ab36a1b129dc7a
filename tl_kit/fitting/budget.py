"""The budget: how much time is left, and a reporter that ends a step whose time is over."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tl_kit.reporting import Reporter

__all__ = ["Budget", "OutOfTimeError", "TimedReporter"]


class OutOfTimeError(BaseException):
    """A step was still at work when the time for it was over.

    It does not derive from Exception, so that no handler of failures continues the work.
    """


@dataclass
class Budget:
    """The time of the whole work: ``total`` seconds, or None for no limit; ``spent`` of them are over at the start.

    ``reserve``: seconds that are kept for the end. ``clock`` counts seconds from any moment.
    """

    total: float | None
    spent: float = 0.0
    reserve: float = 0.0
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._started = self.clock() - self.spent

    @property
    def elapsed(self) -> float:
        """Seconds since the start of the work, start-up included."""
        return self.clock() - self._started

    @property
    def left(self) -> float:
        """Seconds for further steps; infinite without a limit."""
        return float("inf") if self.total is None else self.total - self.reserve - self.elapsed

    def check(self) -> None:
        """Raises OutOfTimeError if no time is left."""
        if self.left <= 0:
            raise OutOfTimeError


class TimedReporter:
    """A reporter that passes everything on, each message once, and raises OutOfTimeError when the time is over.

    A run calls its reporter after each batch of images and each training step, so it ends soon after its time.
    """

    def __init__(self, reporter: Reporter, budget: Budget) -> None:
        self._reporter, self._budget = reporter, budget
        self._said: set[str] = set()

    def message(self, text: str) -> None:
        """Pass on a message that was not there before."""
        if text not in self._said:
            self._said.add(text)
            self._reporter.message(text)

    def start(self, stage: str, total: int) -> None:
        """A stage begins."""
        self._budget.check()
        self._reporter.start(stage, total)

    def advance(self, steps: int = 1, **figures: float) -> None:
        """Some steps of the stage are done."""
        self._budget.check()
        self._reporter.advance(steps, **figures)

    def epoch(self, row: Mapping[str, float]) -> None:
        """An epoch is over."""
        self._budget.check()
        self._reporter.epoch(row)

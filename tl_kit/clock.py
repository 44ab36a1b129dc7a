"""The clock of a run: its seconds by stage."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

__all__ = ["STAGES", "Clock"]

STAGES = ("setup", "scan", "data", "features", "train", "evaluate", "save")


@dataclass
class Clock:
    """Seconds by stage, each second in one of them. ``with clock("scan"): ...`` is of that stage.

    A stage within another one interrupts it. Outside of all it is ``setup``: the network is built, its precision
    measured, the cut of its frozen part proved.
    """

    started: float = field(default_factory=lambda: time.perf_counter())
    stages: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    first_batch: float | None = None
    _stage: str = "setup"
    _since: float = field(init=False)

    def __post_init__(self) -> None:
        self._since = self.started

    def start_training(self) -> None:
        """Note when the first training batch is there; later calls change nothing."""
        if self.first_batch is None:
            self.first_batch = time.perf_counter() - self.started

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        outer = self._enter(stage)
        try:
            yield
        finally:
            self._enter(outer)

    def _enter(self, stage: str) -> str:
        """Change to a stage. The time since the last change is added to the stage before, which is returned."""
        before, now = self._stage, time.perf_counter()
        self.stages[before] += now - self._since
        self._stage, self._since = stage, now
        return before

    def seconds(self) -> dict[str, float]:
        """Total first, then the stages, whose sum it is.

        ``first_batch``, where there was one, is when it reached the training step, counted from the start.
        """
        self._enter(self._stage)
        first = {} if self.first_batch is None else {"first_batch": self.first_batch}
        return {"total": self._since - self.started, **first, **self.stages}

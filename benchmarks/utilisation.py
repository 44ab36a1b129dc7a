"""The share of time in which a GPU has work while the second epoch of a run trains."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

import torch

__all__ = ["SecondEpoch", "utilisation"]


class SecondEpoch:
    """A reporter that knows when the second epoch trains."""

    now = False

    def message(self, text: str) -> None:
        pass

    def start(self, stage: str, total: int) -> None:
        self.now = stage == "epoch 2/2"

    def advance(self, steps: int = 1, **figures: float) -> None:
        pass

    def epoch(self, row: Mapping[str, float]) -> None:
        pass


@contextmanager
def utilisation(when: SecondEpoch) -> Iterator[list[float]]:
    """The share of time in which the GPU had work, ten times a second; empty where it cannot be read."""
    found: list[float] = []
    over = threading.Event()

    def watch() -> None:
        with suppress(Exception):  # pynvml may be missing
            while torch.cuda.is_available() and not over.wait(0.1):
                if when.now:
                    found.append(torch.cuda.utilization() / 100)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield found
    finally:
        over.set()
        watcher.join()

"""How the library tells what it is doing: it never prints, it calls a Reporter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

__all__ = ["SILENT", "Reporter"]


class Reporter(Protocol):
    """What a user interface may show. Every method may be called from the main thread only."""

    def message(self, text: str) -> None:
        """One line that the user should read: a decision and its reason, a warning."""

    def start(self, stage: str, total: int) -> None:
        """A stage of ``total`` steps begins (the one before has ended)."""

    def advance(self, steps: int = 1, **figures: float) -> None:
        """Some steps of the stage are done; ``figures`` are shown beside the bar (loss, data_wait)."""

    def epoch(self, row: Mapping[str, float]) -> None:
        """An epoch is over; its figures by name."""


class _Silent:
    def message(self, text: str) -> None:
        pass

    def start(self, stage: str, total: int) -> None:
        pass

    def advance(self, steps: int = 1, **figures: float) -> None:
        pass

    def epoch(self, row: Mapping[str, float]) -> None:
        pass


SILENT: Reporter = _Silent()

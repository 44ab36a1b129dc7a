"""Reporting: the library never prints, it calls a Reporter."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import Protocol

__all__ = ["SILENT", "UNKNOWN", "Reporter", "note", "take_notes", "tell"]

UNKNOWN = -1
"""The total of a stage whose number of steps nobody knows."""


class Reporter(Protocol):
    """A user interface that shows the library's progress. Every method may be called from the main thread only."""

    def message(self, text: str) -> None:
        """One line that the user should read: a decision and its reason, a warning."""

    def start(self, stage: str, total: int) -> None:
        """A stage of ``total`` steps, or ``UNKNOWN``, begins (the one before has ended)."""

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


class _Notes(threading.local):
    def __init__(self) -> None:
        self.lines: dict[str, None] = {}


_NOTES = _Notes()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _NOTES.lines.clear())  # the parent reports its own lines


def note(text: str) -> None:
    """Keep a line for the user from code without a Reporter; :func:`tell` passes it on later."""
    _NOTES.lines[text] = None


def tell(reporter: Reporter) -> None:
    """Pass on the lines noted in this thread since the last call, each once."""
    for line in take_notes():
        reporter.message(line)


def take_notes() -> list[str]:
    """The lines noted in this thread since the last call, each once: for another thread to note."""
    lines = list(_NOTES.lines)
    _NOTES.lines.clear()
    return lines

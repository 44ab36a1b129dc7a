"""A tracker of accelerate's kind that keeps in memory what it is sent, and one that does all it can to disturb."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from accelerate import tracking
from accelerate.tracking import GeneralTracker


class Recorder(GeneralTracker):
    """Keeps each session's calls as (method, content, step)."""

    name = "recorder"
    requires_logging_directory = True
    sessions: ClassVar[list[list[tuple[str, Any, int | None]]]] = []

    def __init__(self, run_name: str, logging_dir: str) -> None:
        super().__init__()
        self.calls: list[tuple[str, Any, int | None]] = [("open", (run_name, logging_dir), None)]
        self.sessions.append(self.calls)

    @property
    def tracker(self) -> None:
        return None

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.calls.append(("options", values, None))

    def log(self, values: dict[str, Any], step: int | None = None, **kwargs: Any) -> None:
        self.calls.append(("log", values, step))

    def log_table(self, name: str, columns: Any = None, data: Any = None, step: int | None = None) -> None:
        self.calls.append((f"table {name}", [columns, *data], step))

    def log_images(self, values: dict[str, Any], step: int | None = None) -> None:
        self.calls.append(("images", values, step))

    def finish(self) -> None:
        self.calls.append(("finish", None, None))


class Meddler(Recorder):
    """Draws random numbers and sets seeds whenever it is called, and fails where it is told to."""

    name = "meddler"
    fails_at: ClassVar[str] = ""

    def meddle(self, method: str) -> None:
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
        torch.rand(7)
        if method == self.fails_at:
            raise SystemExit("no network\nand more lines")

    def start(self) -> None:
        self.meddle("start")

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.meddle("options")

    def log(self, values: dict[str, Any], step: int | None = None, **kwargs: Any) -> None:
        self.meddle("log")

    def log_images(self, values: dict[str, Any], step: int | None = None) -> None:
        self.meddle("images")

    def finish(self) -> None:
        self.meddle("finish")


@contextmanager
def registered(*kinds: type[Recorder]) -> Iterator[None]:
    """Within the block accelerate knows these trackers."""
    with pytest.MonkeyPatch.context() as patch:
        for kind in kinds:
            patch.setitem(tracking.LOGGER_TYPE_TO_CLASS, kind.name, kind)
            patch.setattr(kind, "sessions", [])
        yield

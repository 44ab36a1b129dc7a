"""Fits of tiny networks on tiny images, and what ends them early."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tl_kit import FitConfig
from tl_kit.config import LadderConfig, RuntimeConfig
from tl_kit.fitting import climb

__all__ = ["LADDER", "config", "stopped_at"]

LADDER = LadderConfig(members=2, patience=1)


def config(data: Path, out: Path, **options: Any) -> FitConfig:
    root = data.parent
    own = {"models": f"local-dir:{root / 'a'},local-dir:{root / 'b'}", "img_size": 32, "ladder": LADDER}
    return FitConfig(data=data, out=out, runtime=RuntimeConfig(precision="fp32"), **(own | options))


@contextmanager
def stopped_at(monkeypatch: pytest.MonkeyPatch, count: int, error: BaseException) -> Iterator[None]:
    """The run of this number, counted from 0, ends with an error before it begins."""
    original, calls = climb.finetune_on, itertools.count()

    def stopping(*args: Any, **options: Any) -> Any:
        if next(calls) == count:
            raise error
        return original(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(climb, "finetune_on", stopping)
        yield

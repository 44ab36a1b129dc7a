"""What tests of ``fit`` do without, where it is not in question."""

from __future__ import annotations

import pytest

from tl_kit.fitting import climb
from tl_kit.fitting.speed import Speed


@pytest.fixture
def same_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every network is said to be as fast as the others: to measure it takes as long as to fit its head."""
    monkeypatch.setattr(climb, "measure_speed", lambda *_: Speed(latency=1.0, row=0.001))

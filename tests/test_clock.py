"""The clock of a run: each second is in one stage."""

from __future__ import annotations

import pytest

from tl_kit.clock import STAGES, Clock


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the clock reads: set the only element."""
    now = [100.0]
    monkeypatch.setattr("tl_kit.clock.time.perf_counter", lambda: now[0])
    return now


def test_an_inner_stage_interrupts_the_outer_one_and_all_else_is_setup(time: list[float]) -> None:
    clock = Clock()
    time[0] += 1
    with clock("train"):
        time[0] += 10
        with clock("data"):
            time[0] += 100
        time[0] += 1000
    time[0] += 10_000
    found = clock.seconds()
    assert found == {"total": 11_111, **dict.fromkeys(STAGES, 0), "setup": 10_001, "train": 1010, "data": 100}


def test_an_error_ends_its_stage(time: list[float]) -> None:
    clock = Clock()

    def failing() -> None:
        with clock("train"):
            time[0] += 1
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        failing()
    time[0] += 2
    assert (clock.seconds()["train"], clock.seconds()["setup"]) == (1, 2)


def test_it_may_be_read_at_any_time(time: list[float]) -> None:
    clock = Clock()
    with clock("train"):
        time[0] += 1
        assert clock.seconds()["train"] == 1
        time[0] += 1
    assert clock.seconds() == clock.seconds()
    assert clock.seconds()["train"] == 2


def test_the_first_batch_is_counted_from_the_start_once(time: list[float]) -> None:
    clock = Clock()
    time[0] += 3
    clock.start_training()
    time[0] += 3
    clock.start_training()
    assert clock.seconds()["first_batch"] == 3

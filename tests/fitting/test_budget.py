"""The budget: durations as users write them, the seconds that are left, and the end of a step whose time is over."""

from __future__ import annotations

import pytest

from tests.helpers import Listener
from tl_kit.config import count_of, seconds_of
from tl_kit.fitting.budget import Budget, OutOfTimeError, TimedReporter


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("2m", 120), ("1.5m", 90), ("10min", 600), ("1h", 3600), ("1h30m", 5400), (" 2 M ", 120)],
)
def test_durations(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds
    assert seconds_of(seconds) == seconds


@pytest.mark.parametrize("text", ["", "soon", "10x", "m", "-5s", "1h-3m", "ten minutes", "5 m of it", "1h30", "10 20"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="such as"):
        seconds_of(text)


@pytest.mark.parametrize(("text", "count"), [("5M", 5e6), ("300k", 3e5), ("2.5m", 2.5e6), ("1B", 1e9), ("12", 12)])
def test_counts(text: str, count: float) -> None:
    assert count_of(text) == count


@pytest.mark.parametrize("text", ["", "five", "5 MB", "-3"])
def test_what_is_no_count(text: str) -> None:
    with pytest.raises(ValueError, match="such as"):
        count_of(text)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_seconds_left_count_start_up_and_reserve() -> None:
    clock = Clock()
    budget = Budget(60, spent=4, reserve=3, clock=clock)
    assert (budget.elapsed, budget.left) == (4, 53)
    clock.now += 50
    assert (budget.elapsed, budget.left) == (54, 3)
    budget.check()
    budget.reserve = 7
    with pytest.raises(OutOfTimeError):
        budget.check()


def test_without_a_limit_time_is_never_over() -> None:
    clock = Clock()
    budget = Budget(None, clock=clock)
    clock.now += 1e9
    budget.check()
    assert budget.left == float("inf")


def test_a_reporter_ends_its_step_and_says_each_message_once() -> None:
    clock, listener = Clock(), Listener()
    reporter = TimedReporter(listener, Budget(10, clock=clock))
    for _ in range(2):
        reporter.message("a line")
    reporter.start("train", 3)
    reporter.advance(loss=1.0)
    clock.now += 11
    reporter.message("another")  # what is known is still said
    for call in (lambda: reporter.start("x", 1), reporter.advance, lambda: reporter.epoch({})):
        with pytest.raises(OutOfTimeError):
            call()
    assert listener.messages == ["a line", "another"]


def test_no_handler_of_failures_keeps_a_step_alive() -> None:
    assert not issubclass(OutOfTimeError, Exception)

"""Requests to stop: at once, unless they are postponed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tl_kit import stopping
from tl_kit.stopping import TERMINATED, StoppedError


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    stopping.reset()
    yield
    stopping.reset()


@pytest.fixture
def seen() -> list[object]:
    return []


def stop() -> None:
    stopping.request(StoppedError("left", code=TERMINATED))


def raises(work: Callable[[], object]) -> None:
    with pytest.raises(StoppedError, match="left"):
        work()
    assert stopping.waiting() is None


def test_nobody_postpones() -> None:
    raises(stop)
    stopping.answer()


def test_it_waits_for_the_next_answer(seen: list[object]) -> None:
    @stopping.postponed()
    def work() -> None:
        stop()
        seen.append(type(stopping.waiting()))
        stopping.answer()
        seen.append("never")

    raises(work)
    assert seen == [StoppedError]


@pytest.mark.parametrize("error", [None, ValueError("also")])
def test_it_waits_for_the_end_however_that_comes(error: Exception | None, seen: list[object]) -> None:
    @stopping.postponed()
    def work() -> None:
        stop()
        seen.append("went on")
        if error is not None:
            raise error

    raises(work)
    assert seen == ["went on"]


def test_where_it_is_allowed_it_need_not_wait(seen: list[object]) -> None:
    @stopping.postponed()
    def work() -> None:
        with stopping.allowed():
            stop()
        seen.append("never")

    raises(work)
    assert seen == []


def test_what_waits_comes_before_a_block_where_it_is_allowed(seen: list[object]) -> None:
    @stopping.postponed()
    def work() -> None:
        stop()
        with stopping.allowed():
            seen.append("never")

    raises(work)
    assert seen == []


def test_a_request_that_was_raised_can_be_put_off_and_nothing_else_can(seen: list[object]) -> None:
    @stopping.postponed()
    def work() -> None:
        try:
            with stopping.allowed():
                stop()
        except StoppedError as error:
            seen.extend([stopping.put_off(ValueError()), stopping.put_off(error), stopping.waiting() is error])
        stopping.answer()
        seen.append("never")

    raises(work)
    assert seen == [False, True, True]


def test_at_once_means_now_and_is_not_put_off() -> None:
    second = StoppedError(code=130)
    with stopping.postponed():
        stopping.request(KeyboardInterrupt())
        with pytest.raises(StoppedError) as raised:
            stopping.request(second, at_once=True)
        assert raised.value is second
        assert not stopping.put_off(second)
        assert stopping.waiting() is None, "the second stands for the first"

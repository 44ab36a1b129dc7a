"""Quick work by a few threads: the same results, in the same order, whatever it raises."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from tl_kit.config import ReadConfig
from tl_kit.images import decode
from tl_kit.images.decode import in_few


def squares(count: int, work: Callable[[int], int] = lambda number: number * number) -> list[int]:
    return list(in_few(work, range(count)))


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 700])
@pytest.mark.parametrize("quick", [0.0, 10.0])
def test_all_come_in_order(count: int, quick: float) -> None:
    config = ReadConfig(quick=quick, turn=100)
    assert list(in_few(lambda number: number * number, range(count), config=config)) == [n * n for n in range(count)]


@pytest.mark.parametrize(("seconds", "most"), [(0.0, 2), (0.002, 4)])
def test_slow_work_gets_all_threads(seconds: float, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "available_cores", lambda: 4)
    decode._pool_of.cache_clear()
    names: set[str] = set()

    def work(number: int) -> int:
        time.sleep(seconds)
        if number >= ReadConfig().tried:
            names.add(threading.current_thread().name)
        return number

    try:
        for _ in in_few(work, range(120)):
            time.sleep(0.0005)  # the time of who takes the results says nothing about the work
    finally:
        decode.decode_pool().shutdown()
        decode._pool_of.cache_clear()
    assert 1 <= len(names) <= most
    assert seconds == 0.0 or len(names) > 2


@pytest.mark.parametrize("bad", [3, 200])
def test_an_error_ends_it(bad: int) -> None:
    done: list[int] = []

    def work(number: int) -> int:
        if number == bad:
            raise ValueError("no")
        done.append(number)
        return number

    with pytest.raises(ValueError, match="no"):
        squares(100_000, work)
    assert len(done) < 1000

"""What is made ready ahead comes in order, with its errors and its lines, and leaves no thread behind."""

from __future__ import annotations

import threading

import pytest
import torch

from tests.helpers import told
from tl_kit.machine.prefetch import PrefetchedBatches, prefetched
from tl_kit.reporting import note


def test_all_come_in_order_and_two_are_under_way() -> None:
    begun: list[int] = []
    wait = threading.Event()

    def make(number: int) -> int:
        begun.append(number)
        if number == 1:
            wait.wait(5)
        return 10 * number

    coming = prefetched(make, range(5))
    assert next(coming) == 0
    assert set(begun) <= {0, 1, 2}
    wait.set()
    assert list(coming) == [10, 20, 30, 40]
    assert begun == [0, 1, 2, 3, 4]


def test_an_error_is_raised_at_its_turn() -> None:
    def make(number: int) -> int:
        if number == 2:
            raise ValueError("a file has gone")
        return number

    coming = prefetched(make, range(4))
    assert [next(coming), next(coming)] == [0, 1]
    with pytest.raises(ValueError, match="a file has gone"):
        next(coming)


def test_lines_for_the_user_come_to_the_callers_thread() -> None:
    def make(number: int) -> int:
        note(f"line {number}")
        return number

    assert list(prefetched(make, range(3))) == [0, 1, 2]
    assert told() == ["line 0", "line 1", "line 2"]


def test_one_that_is_given_up_leaves_no_thread_and_begins_no_more() -> None:
    begun: list[int] = []
    coming = prefetched(lambda number: begun.append(number), range(100))
    next(coming)
    coming.close()
    count = len(begun)
    assert count <= 3
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("tlkit-prefetch")]
    assert len(begun) == count


def test_nothing_makes_nothing() -> None:
    assert list(prefetched(lambda item: item, [])) == []


def test_batches_without_a_gpu_are_the_same() -> None:
    found = list(PrefetchedBatches(lambda number: (torch.tensor(number),), range(3)))
    assert [int(batch[0]) for batch in found] == [0, 1, 2]

"""Work in threads: in order, with one thread of BLAS, and nothing left behind."""

from __future__ import annotations

import multiprocessing
import threading

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from tl_kit.optimization.side_by_side import one_thread, side_by_side


def alive() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("tlkit-fit")]


def test_results_are_in_the_order_of_the_items_and_the_threads_end() -> None:
    meet, names = threading.Barrier(3, timeout=60), set()

    def square(number: int) -> int:
        meet.wait()  # three threads are there at once
        names.add(threading.current_thread().name)
        return number**2

    assert side_by_side(square, range(6), threads=3) == [0, 1, 4, 9, 16, 25]
    assert all(name.startswith("tlkit-fit") for name in names)
    assert alive() == []


@pytest.mark.parametrize(("items", "threads"), [(5, 1), (1, 8), (0, 8)])
def test_one_item_or_one_thread_is_done_by_the_caller(items: int, threads: int) -> None:
    found = side_by_side(lambda _: threading.current_thread(), range(items), threads=threads)
    assert found == [threading.current_thread()] * items


def test_an_error_is_the_callers_and_the_threads_end() -> None:
    with pytest.raises(ZeroDivisionError):
        side_by_side(lambda number: 1 / number, [1, 0, 2, 3], threads=2)
    assert alive() == []


def test_blas_has_one_thread_until_the_block_ends() -> None:
    def threads() -> set[int]:
        return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}

    with one_thread():
        assert threads() == {1}
    before = threads()
    with one_thread(), one_thread():
        assert threads() == {1}
    assert threads() == before


def _in_child(rows: np.ndarray) -> list[float]:
    with one_thread():
        return side_by_side(lambda row: float(rows[row] @ rows[row]), range(4), threads=2)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system has no fork")
def test_a_forked_process_computes_the_same() -> None:
    rows = np.random.default_rng(0).normal(size=(4, 1000))
    here = _in_child(rows)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply_async(_in_child, (rows,)).get(timeout=120) == here

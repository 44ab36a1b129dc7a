"""Work of one kind side by side in threads, each with one thread of BLAS: the same bits on any number of cores.

NumPy releases the interpreter's lock in its products. A BLAS that splits a product among its own threads rounds by
their number, and hands out small ones at more than they cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import Any, Protocol, TypeVar

__all__ = ["Workers", "one_thread", "side_by_side", "workers"]

Item = TypeVar("Item")
Found = TypeVar("Found")


class Workers(Protocol):
    """``function`` of each item, in the items' order."""

    def __call__(self, function: Callable[[Item], Found], items: Sequence[Item]) -> list[Found]: ...


@contextmanager
def workers(threads: int) -> Iterator[Workers]:
    """So many threads until the block ends, also where a function fails in one; below two, the caller's own."""
    if threads < 2:
        yield lambda function, items: [function(item) for item in items]
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="tlkit-fit") as pool:
        yield lambda function, items: list(pool.map(function, items))


def side_by_side(function: Callable[[Item], Found], items: Sequence[Item], *, threads: int) -> list[Found]:
    """Call ``function`` on each item, in at most so many threads; what it returns is in the items' order."""
    with workers(min(threads, len(items))) as run:
        return run(function, items)


def one_thread() -> AbstractContextManager[object]:
    """One thread of BLAS for all threads of this process, until the block ends."""
    limits: AbstractContextManager[object] = _libraries().limit(limits=1, user_api="blas")
    return limits


@cache
def _libraries() -> Any:
    """Those of this process that have threads, looked up once."""
    import scipy.linalg  # noqa: F401 - brings its own BLAS, which is limited only if it is there already
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()

"""Fork safety: after a fork of a process with threads, the child has consistent data and can compute.

A child has one thread, the one that forked (fork(2)). A lock held by another thread stays locked forever in the child,
and data that this thread was changing stays half changed. GNU's OpenMP, which torch uses, waits forever for lost
threads.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakSet

from tl_kit.config import ProcessConfig

__all__ = ["ForkLock", "is_forked", "survive_forks", "unforked"]


class ForkLock:
    """A lock for threads that is free in a forked process, a copy or a pickle."""

    def __init__(self) -> None:
        self._lock = self._held = threading.Lock()
        _LOCKS.add(self)

    def __enter__(self) -> None:
        lock = self._lock
        lock.acquire()
        self._held = lock

    def __exit__(self, *_: object) -> None:
        self._held.release()  # in a child that was forked inside the block: the old lock, not the new one

    def __reduce__(self) -> tuple[type[ForkLock], tuple[()]]:
        return ForkLock, ()

    def renew(self) -> None:
        """Replace the lock by a free one, whoever held it."""
        self._lock = threading.Lock()


_LOCKS: WeakSet[ForkLock] = WeakSet()


class _State:
    """Threads inside :func:`unforked`, with their nesting depth, and forks that wait for them.

    ``rested``: OpenMP's threads were ended before this fork. ``forked``: this process is the child of a fork.
    """

    def __init__(self, *, forked: bool = False) -> None:
        self.changed = threading.Condition()
        self.inside: Counter[int] = Counter()
        self.waiting = 0
        self.rested = False
        self.forked = forked


_state = _State()


@contextmanager
def unforked() -> Iterator[None]:
    """Let forks by other threads wait until the block ends, so that no child sees a half-made change.

    Use it for work of at most seconds: a batch, not a data set.
    """
    thread = threading.get_ident()
    with _state.changed:
        _state.changed.wait_for(lambda: not _state.waiting or _state.inside[thread])
        _state.inside[thread] += 1
    try:
        yield
    finally:
        with _state.changed:
            _state.inside[thread] -= 1
            _state.inside += Counter()  # removes the zeros
            _state.changed.notify_all()


def is_forked() -> bool:
    """True if this process was forked from one that had imported tl_kit."""
    return _state.forked


def survive_forks() -> None:
    """Make processes forked from this one able to predict and train. tl_kit calls it once."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)


def _before() -> None:
    _state.changed.acquire()  # no thread enters until the fork is done
    me = threading.get_ident()
    _state.waiting += 1
    _state.changed.wait_for(lambda: not _state.inside.keys() - {me}, timeout=ProcessConfig.fork_seconds)
    _state.rested = _rest_openmp()


def _in_parent() -> None:
    _state.rested = False
    _state.waiting -= 1
    _state.changed.notify_all()
    _state.changed.release()


def _in_child() -> None:
    global _state
    rested, _state = _state.rested, _State(forked=True)
    for lock in tuple(_LOCKS):
        lock.renew()
    if not rested and "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)  # slower, but nothing waits for lost threads


def _rest_openmp() -> bool:
    """End the threads that GNU's OpenMP keeps for this thread; its next computation starts new ones.

    It calls omp_pause_resource_all of OpenMP 5.0; 1 is omp_pause_soft. Other OpenMP libraries handle forks themselves.
    Returns False if this function is not available.
    """
    if not {"torch", "sklearn"} & sys.modules.keys():
        return True  # no OpenMP is loaded
    from threadpoolctl import ThreadpoolController

    found = [lib for lib in ThreadpoolController().lib_controllers if lib.prefix == "libgomp"]
    pauses = [getattr(lib.dynlib, "omp_pause_resource_all", None) for lib in found]
    rested = [pause is not None and pause(1) == 0 for pause in pauses]
    return all(rested)

"""Requests to stop a run: answered at once, or postponed until a training step is complete.

A signal handler calls :func:`request`. Within :func:`postponed`, the error is raised at the next :func:`answer`, or at
the block's end; within a nested :func:`allowed`, at once again. Without such a handler, this module does nothing.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = [
    "INTERRUPTED",
    "TERMINATED",
    "StoppedError",
    "allowed",
    "answer",
    "postponed",
    "put_off",
    "request",
    "reset",
    "restored_handlers",
    "waiting",
]


INTERRUPTED, TERMINATED = 130, 143
"""Exit codes: 128 + SIGINT and SIGTERM."""


class StoppedError(BaseException):
    """The process was asked to end, by a scheduler (SIGTERM) or by a second Ctrl-C. The text says what remains.

    ``code`` is the exit code. It does not derive from Exception, so that no handler of failures continues the work.
    """

    def __init__(self, text: str = "", *, code: int) -> None:
        super().__init__(*([text] if text else []))
        self.code = code


class _Requests:
    held = False
    waiting: BaseException | None = None
    raised: BaseException | None = None


_STATE = _Requests()


def request(error: BaseException, *, at_once: bool = False) -> None:
    """Raise ``error`` now, or keep it while requests are postponed; with ``at_once`` it is never postponed."""
    if _STATE.held and not at_once:
        _STATE.waiting = error
        return
    _STATE.waiting, _STATE.raised = None, None if at_once else error
    raise error


def waiting() -> BaseException | None:
    """The postponed request that the next :func:`answer` raises; None without one."""
    return _STATE.waiting


def answer() -> None:
    """Raise the postponed request, if there is one."""
    if _STATE.waiting is not None:
        error, _STATE.waiting = _STATE.waiting, None
        raise error


def put_off(error: BaseException) -> bool:
    """Postpone a request that was already raised; returns False for any other error."""
    if error is not _STATE.raised:
        return False
    _STATE.waiting, _STATE.raised = error, None
    return True


@contextmanager
def postponed() -> Iterator[None]:
    """A context in which requests wait until :func:`answer` or the end of the block, however it ends."""
    try:
        with _holding(True):
            yield
    finally:
        answer()


@contextmanager
def allowed() -> Iterator[None]:
    """A context in which requests are raised at once; a postponed one is raised before the block."""
    answer()
    with _holding(False):
        yield


@contextmanager
def _holding(held: bool) -> Iterator[None]:
    before, _STATE.held = _STATE.held, held
    try:
        yield
    finally:
        _STATE.held = before


def reset() -> None:
    """Forget all requests, at the start of a command."""
    _STATE.held, _STATE.waiting, _STATE.raised = False, None, None


@contextmanager
def restored_handlers() -> Iterator[dict[signal.Signals, Any]]:
    """Put the handlers of Ctrl-C and SIGTERM back after the block; yields those from before, by signal."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield before
    finally:
        for number, handler in before.items():
            if handler is not None:  # None: set by other code than Python's, which cannot set it again
                signal.signal(number, handler)

"""Requests to stop: where they may be answered at once, and where they wait until a step is whole.

A signal handler calls :func:`request`. Within :func:`postponed`, the error is raised at the next :func:`answer`, or at
the block's end; within :func:`allowed` in turn, at once again. Without a handler that calls it, nothing here acts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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
    "waiting",
]


INTERRUPTED, TERMINATED = 130, 143
"""Exit codes: 128 + SIGINT and SIGTERM."""


class StoppedError(BaseException):
    """The process was asked to end: by a scheduler (SIGTERM), or by a second Ctrl-C. Its text says what is left.

    ``code`` is the exit code. No Exception: nothing may take it for a failure and go on.
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
    """Raise ``error`` now, or note it where it is postponed; ``at_once`` does not wait."""
    if _STATE.held and not at_once:
        _STATE.waiting = error
        return
    _STATE.waiting, _STATE.raised = None, None if at_once else error
    raise error


def waiting() -> BaseException | None:
    """The request that the next :func:`answer` raises."""
    return _STATE.waiting


def answer() -> None:
    """Raise the request that is waiting."""
    if _STATE.waiting is not None:
        error, _STATE.waiting = _STATE.waiting, None
        raise error


def put_off(error: BaseException) -> bool:
    """Let a request that was raised at once wait after all; False for any other error."""
    if error is not _STATE.raised:
        return False
    _STATE.waiting, _STATE.raised = error, None
    return True


@contextmanager
def postponed() -> Iterator[None]:
    """Requests wait until :func:`answer`, or for the end of the block, however it ends."""
    try:
        with _holding(True):
            yield
    finally:
        answer()


@contextmanager
def allowed() -> Iterator[None]:
    """Requests are raised at once; one that is waiting, before the block."""
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
    """Forget all requests: a command begins."""
    _STATE.held, _STATE.waiting, _STATE.raised = False, None, None

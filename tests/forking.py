"""Work in forked processes that end in any case: after so many seconds the system ends them (alarm(2))."""

from __future__ import annotations

import os
import pickle
import signal
import traceback
from collections.abc import Callable
from typing import Any

__all__ = ["in_child"]


def in_child(work: Callable[[], Any], *, seconds: int = 240) -> Any:
    """What ``work`` returns in a process forked from this one. Fails where it raises, or takes longer."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        _run(work, writing, seconds)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        answer = stream.read()
    _, status = os.waitpid(child, 0)
    assert not os.WIFSIGNALED(status), f"the child was ended by signal {os.WTERMSIG(status)} after {seconds} s at most"
    done, found = pickle.loads(answer)
    assert done, found
    return found


def _run(work: Callable[[], Any], writing: int, seconds: int) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(seconds)
    try:
        answer = pickle.dumps((True, work()))
    except BaseException:  # noqa: BLE001 - the parent raises it
        answer = pickle.dumps((False, traceback.format_exc()))
    with os.fdopen(writing, "wb") as stream:
        stream.write(answer)
    os._exit(0)

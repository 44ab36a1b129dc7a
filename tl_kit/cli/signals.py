"""What ``tlkit finetune`` does when it is asked to end: SIGTERM from a scheduler, Ctrl-C, and Ctrl-C again."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from tl_kit import stopping
from tl_kit.stopping import INTERRUPTED, TERMINATED, StoppedError

__all__ = ["answering_signals"]


@contextmanager
def answering_signals() -> Iterator[None]:
    """Within the block signals are requests to stop, answered when a training step is whole.

    The first Ctrl-C is KeyboardInterrupt; a second, during whatever tidying follows, ends the command at once. Outside
    the main thread nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed = 0

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal pressed
        pressed += 1
        if pressed == 1:
            stopping.request(KeyboardInterrupt())
        else:
            stopping.request(StoppedError(code=INTERRUPTED), at_once=True)

    def terminate(_number: int, _frame: FrameType | None) -> None:
        stopping.request(StoppedError(code=TERMINATED))

    stopping.reset()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    if before[signal.SIGINT] is signal.default_int_handler:  # a shell's background job ignores Ctrl-C
        signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)
        stopping.reset()

"""A command's session: its console, and the conversion of errors into a line and an exit code."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import typer

from tl_kit import cache_line, stopping
from tl_kit.cli.console import Console, OutputClosedError
from tl_kit.errors import TlKitError, first_line
from tl_kit.stopping import INTERRUPTED, TERMINATED, StoppedError

__all__ = [
    "INTERNAL_ERROR",
    "INTERRUPTED",
    "OUTPUT_CLOSED",
    "PROBLEMS_FOUND",
    "USER_ERROR",
    "answering_signals",
    "session",
]

PROBLEMS_FOUND = 1
INTERNAL_ERROR = 1
USER_ERROR = 2
OUTPUT_CLOSED = 141  # 128 + SIGPIPE


@contextmanager
def session(*, debug: bool = False, command: bool = True) -> Iterator[Console]:
    """A console for one command; an error inside ends the command with one line and its exit code.

    ``debug`` shows the traceback first. A ``command`` reports its cache if it is not in the usual place. Raises
    typer.Exit for every error; a typer.Exit of the command is passed on.
    """
    console = Console()
    try:
        with console:
            if command and (line := cache_line()) is not None:
                console.message(line)
            yield console
    except (typer.Exit, typer.Abort):
        raise
    except OutputClosedError:
        raise typer.Exit(OUTPUT_CLOSED) from None
    except (Exception, KeyboardInterrupt, StoppedError) as error:
        if debug:
            console.traceback(error)
        text, code = _explain(error)
        console.error(text)
        raise typer.Exit(code) from error


def _explain(error: BaseException) -> tuple[str, int]:
    """The line and the exit code for an error."""
    if isinstance(error, TlKitError):
        return f"error: {error}", USER_ERROR
    if isinstance(error, KeyboardInterrupt):
        # The interrupted work says what remains of it.
        return f"interrupted: {error}" if error.args else "interrupted", INTERRUPTED
    if isinstance(error, StoppedError):
        return "terminated" if error.code == TERMINATED else "interrupted", error.code
    if (
        isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    ):  # torch's error, without importing torch
        return "error: memory ran out: choose a smaller --batch-size, --img-size or model", USER_ERROR
    if isinstance(error, OSError) and error.strerror:  # a full disk, a missing permission
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"error: {where}{error.strerror}", USER_ERROR
    name, text = type(error).__name__, first_line(error)
    said = text if text == name else f"{name}: {text}"
    return f"internal error: {said}; run again with --debug and report it", INTERNAL_ERROR


@contextmanager
def answering_signals() -> Iterator[None]:
    """Within the block signals are requests to stop, answered when a training step is complete.

    The first Ctrl-C raises KeyboardInterrupt; a second, during the cleanup that follows, ends the command at once.
    Outside the main thread nothing changes.
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
    try:
        with stopping.restored_handlers() as before:
            if before[signal.SIGINT] is signal.default_int_handler:  # a shell's background job ignores Ctrl-C
                signal.signal(signal.SIGINT, interrupt)
            signal.signal(signal.SIGTERM, terminate)
            yield
    finally:
        stopping.reset()

"""The processes that tests start: signals as in a shell's foreground, a time limit, and an end with their test."""

from __future__ import annotations

import faulthandler
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

__all__ = ["LIMIT", "end_all", "prepare", "register", "run", "start"]

ROOT = Path(__file__).parents[1]
LIMIT = 300.0
"""Seconds after which a process that a test started is ended."""

_PREPARED = "import sys; from tests.children import prepare; prepare(int(sys.argv.pop(1)), seconds={seconds})\n"


_LIVE: list[tuple[int, Callable[[], object]]] = []


def start(
    code: str, *arguments: object, seconds: float = LIMIT, cwd: Path = ROOT, **more: Any
) -> subprocess.Popen[str]:
    """``python -c code`` under way, to be signalled or waited for; it ends with the test, or after ``seconds``."""
    command = [sys.executable, "-c", _PREPARED.format(seconds=seconds) + code, str(os.getpid()), *map(str, arguments)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
    process = subprocess.Popen(command, cwd=cwd, text=True, start_new_session=True, **streams)
    register(process.pid, lambda: _reap(process))
    return process


def run(command: Sequence[object], *, seconds: float = LIMIT, **more: Any) -> subprocess.CompletedProcess[str]:
    """A command to its end, what it printed included; after ``seconds`` it and all that it started are killed.

    Raises:
        subprocess.TimeoutExpired: It took longer.
    """
    arguments = [str(argument) for argument in command]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
    with subprocess.Popen(arguments, text=True, start_new_session=True, **streams) as process:
        try:
            out, err = process.communicate(timeout=seconds)
        finally:
            _end(process.pid, process.kill)
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def register(pid: int, kill: Callable[[], object]) -> None:
    """Have a process killed at the end of the test, by ``kill`` and with the group that it leads, if it does."""
    _LIVE.append((pid, kill))


def end_all() -> None:
    """Kill what is left of the processes that this test started, and all that they started."""
    while _LIVE:
        _end(*_LIVE.pop())


def prepare(parent: int, *, seconds: float = LIMIT) -> None:
    """First thing in a process: answer signals, lead a group, and end after ``seconds`` or when ``parent`` is gone.

    Signals that are ignored or blocked stay so in every process that is started: under nohup, in a script's background
    job and on some build servers SIGINT is.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
        with suppress(PermissionError):  # it leads one
            os.setsid()
    threading.Thread(target=_watch, args=(parent, time.monotonic() + seconds), daemon=True).start()


def _watch(parent: int, until: float) -> None:
    while time.monotonic() < until and psutil.pid_exists(parent):
        time.sleep(0.5)
    with suppress(OSError, ValueError, RuntimeError):  # nobody may be there to read it
        faulthandler.dump_traceback(all_threads=True)
    if sys.platform != "win32" and os.getpgid(0) == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _end(pid: int, kill: Callable[[], object]) -> None:
    if sys.platform != "win32":
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
    kill()


def _reap(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with suppress(OSError):  # what was not written yet
                stream.close()

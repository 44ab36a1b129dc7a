"""Work in processes of its own that can be killed: forked from one that has imported what they need.

They end with the test that started them (:mod:`tests.children`).
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing.context import ForkServerContext
from pathlib import Path

from tests import children

__all__ = ["NO_FORKS", "Command", "Forked", "script"]

NO_FORKS = "forkserver" not in multiprocessing.get_all_start_methods()


def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.torture.preloaded"])
    return context


class Forked:
    """``work(*arguments)`` under way; what it prints goes to ``log``, or, to stdout, to ``out`` where that is given.

    It has the environment variables of this process, and ``more``.
    """

    def __init__(
        self,
        work: Callable[..., None],
        *arguments: object,
        log: Path,
        out: Path | None = None,
        more: Mapping[str, str] | None = None,
    ) -> None:
        self.log = log
        environment = {**os.environ, **(more or {})}
        streams = [str(path) for path in (log, out) if path is not None]
        self._process = _context().Process(target=_run, args=(work, arguments, streams, environment, os.getpid()))
        self._process.start()
        assert self._process.pid is not None
        children.register(self._process.pid, self.kill)

    def wait(self, seconds: float = 300) -> int:
        """Its exit code; negative for the signal that killed it. Fails where it takes longer."""
        self._process.join(seconds)
        if self._process.exitcode is None:
            self.kill()
            raise AssertionError(f"not over after {seconds} s: {self.text()}")
        return self._process.exitcode

    def wait_for(self, text: str, *, seconds: float = 120) -> bool:
        """Until it has printed ``text``; False where it ended without."""
        until = time.monotonic() + seconds
        while text not in self.text():
            if self._process.exitcode is not None or time.monotonic() > until:
                return text in self.text()
            time.sleep(0.005)
        return True

    def send(self, signal: int) -> None:
        """Nothing, where it has ended."""
        assert self._process.pid is not None
        with suppress(ProcessLookupError):
            os.kill(self._process.pid, signal)

    def kill(self) -> int:
        """SIGKILL: nothing in the process can answer it."""
        self._process.kill()
        self._process.join()
        assert self._process.exitcode is not None
        return self._process.exitcode

    def text(self) -> str:
        return self.log.read_text(encoding="utf-8") if self.log.exists() else ""


def script(code: str, *arguments: str) -> None:
    """For :class:`Forked`: a script's ``code``, with these arguments."""
    sys.argv = ["script", *arguments]
    exec(compile(code, "script", "exec"), {"__name__": "__main__"})


class Command(Forked):
    """One command under way. ``limits`` is called in the process before it begins."""

    def __init__(
        self,
        arguments: Sequence[object],
        log: Path,
        *,
        limits: Callable[[], None] | None = None,
        out: Path | None = None,
    ) -> None:
        super().__init__(_command, [str(a) for a in arguments], limits, log=log, out=out)


def _command(arguments: list[str], limits: Callable[[], None] | None) -> None:
    if limits is not None:
        limits()
    from tl_kit.cli import main

    main(arguments)


def _run(
    work: Callable[..., None],
    arguments: tuple[object, ...],
    streams: list[str],
    environment: dict[str, str],
    parent: int,
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    files = [os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644) for path in streams]
    os.dup2(files[-1], 1)
    os.dup2(files[0], 2)
    children.prepare(parent)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115 - for as long as it runs
    work(*arguments)

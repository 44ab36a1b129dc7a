"""Paths that come one after another, such as those on standard input."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from queue import Empty, Full, Queue
from typing import IO, Any

from tl_kit.config import StreamConfig
from tl_kit.errors import ConfigError, DataError, InputError

__all__ = ["PathList"]

_PIECE = 2**16
_AHEAD = 4  # pieces that are read before the paths in them are needed
_SECOND = 1.0  # Windows answers Ctrl-C between two waits alone
_BOM = b"\xef\xbb\xbf"  # of lists that were written on Windows


class PathList:
    """Paths in an open file, one a line, read as they come: ``predict`` takes it as an input.

    ``stream`` is opened in binary mode and has not been read from; it may be a pipe. ``null``: each path ends with a
    NUL byte, as ``find -print0`` writes them, and may hold any other. Empty lines are left out. A file that is named
    twice is predicted twice. Bytes that are not UTF-8 are kept. It can be used once.
    """

    def __init__(self, stream: IO[bytes], *, null: bool = False, name: str = "standard input") -> None:
        if not callable(getattr(stream, "read", None)) or hasattr(stream, "encoding"):
            raise InputError(f"{name}: must be a file opened in binary mode, with 'rb'")
        self._stream, self._null, self.name = stream, null, name

    def paths(self, config: StreamConfig) -> Iterator[str | None]:
        """The paths; None after each ``config.pause`` in which none came, unless none came since the last one.

        Raises DataError if the stream cannot be read, or for a line of more than ``config.line_bytes``; ConfigError for
        lines that hold NUL bytes.
        """
        end, rest, first, fresh = b"\0" if self._null else b"\n", b"", True, False
        for piece in self._pieces(config.pause):
            if piece is None:
                if fresh:
                    yield None
                fresh = False
                continue
            if first:
                piece, first = piece.removeprefix(_BOM), False
            if not self._null and b"\0" in piece:
                raise ConfigError(f"{self.name} holds NUL bytes: are they between the paths? then give --null")
            *lines, rest = (rest + piece).split(end)
            for line in lines:
                if line.strip(b"\r"):
                    fresh = True
                    yield self._path(line)
            if len(rest) > config.line_bytes:
                raise DataError(f"{self.name}: a line of more than {config.line_bytes:,} bytes: give a path a line")
        if rest.strip(b"\r"):
            yield self._path(rest)

    def _path(self, line: bytes) -> str:
        """A path; without the carriage return of a list from Windows, unless there is such a file."""
        if not self._null and line.endswith(b"\r") and not os.path.lexists(line):
            line = line[:-1]
        return os.fsdecode(line)

    def _pieces(self, pause: float) -> Iterator[bytes | None]:
        """Pieces of the stream as a thread reads them; None after each pause."""
        queue: Queue[Any] = Queue(_AHEAD)
        stopped = threading.Event()
        # Python cannot end while a thread waits inside a buffered stream: it waits for the stream's lock.
        read = getattr(self._stream, "raw", self._stream).read
        threading.Thread(target=_fill, args=(read, queue, stopped), name="tlkit-paths", daemon=True).start()
        try:
            waited = False
            while True:
                try:
                    piece = queue.get(timeout=_SECOND if waited else pause)
                except Empty:
                    if not waited:
                        yield None
                    waited = True
                    continue
                waited = False
                if isinstance(piece, Exception):
                    raise DataError(f"{self.name}: cannot be read: {piece}") from piece
                if not piece:
                    return
                yield piece
        finally:
            stopped.set()


def _fill(read: Any, queue: Queue[Any], stopped: threading.Event) -> None:
    """Read pieces into the queue to the end, which is an empty one; an error takes its place."""
    while not stopped.is_set():
        try:
            piece = read(_PIECE)
        except (OSError, ValueError) as error:
            piece = error
        if piece is None:  # nothing there yet, in a stream that does not wait
            stopped.wait(0.01)
            continue
        while not stopped.is_set():
            with suppress(Full):
                queue.put(piece, timeout=_SECOND)
                break
        if not piece or isinstance(piece, Exception):
            return

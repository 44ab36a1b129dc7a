"""Marks of inputs: what tells, without decoding an image, that it is not the one that it was."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

from tl_kit.inference.streaming.named import Named

__all__ = ["InputDigests", "mark_of", "marked"]


class InputDigests:
    """Digests of the names and of the marks of the inputs that came so far, in order."""

    def __init__(self) -> None:
        self._names, self._marks = hashlib.sha256(), hashlib.sha256()

    def add(self, name: str, mark: str) -> None:
        """Count an input."""
        self._names.update(name.encode("utf-8", "surrogatepass") + b"\0")
        self._marks.update(mark.encode() + b"\0")

    @property
    def names(self) -> str:
        """SHA-256 of the names, in hex."""
        return self._names.hexdigest()

    @property
    def marks(self) -> str:
        """SHA-256 of the marks, in hex."""
        return self._marks.hexdigest()


def mark_of(item: Named) -> str:
    """Size and time of change of a file, the SHA-256 of an image in memory; of an address, which is not asked, none."""
    if isinstance(item.source, bytes):
        return hashlib.sha256(item.source).hexdigest()
    if not isinstance(item.source, Path):
        return ""
    try:
        status = os.stat(item.source)  # noqa: PTH116 - the same for a path with a null character
    except (OSError, ValueError):
        return "missing"
    return f"{status.st_size} {status.st_mtime_ns}"


def marked(items: Iterable[Named | None], marks: deque[str]) -> Iterator[Named | None]:
    """The items; the mark of each is put into ``marks`` before it is passed on."""
    for item in items:
        if item is not None:
            marks.append(mark_of(item))
        yield item

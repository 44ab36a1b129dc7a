"""Glob patterns: the files and folders that match a path with wildcards, if no shell has expanded it."""

from __future__ import annotations

import fnmatch
import glob
import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tl_kit.errors import DataError

__all__ = ["expand"]

_SEPARATORS = os.sep + (os.altsep or "")
_ANY_FOLDERS = "**"


def expand(path: Path | str) -> list[Path]:
    """Expand a path: the existing file or folder; else, if it has wildcards, its matches; else the path itself.

    ``*`` and ``?`` stand for characters of a name, ``[a-z]`` for one of a set, ``**`` for any number of folders,
    including none. A folder with several links is searched once. Names that start with a dot match only patterns that
    start with a dot. A part that exists as it is written is not a pattern, and brackets without a match are plain
    brackets: ``g [old]/*.jpg``. ``~`` is the user's folder. Results are sorted by name, folder by folder. Raises
    DataError for an empty path, and for a pattern without a match.
    """
    text = os.fspath(path)
    if not text:
        raise DataError("one of the paths is empty: name a file, a folder or a pattern")
    if text.startswith("~") and not os.path.lexists(text):
        with suppress(RuntimeError):  # ~ of an unknown user
            text = str(Path(text).expanduser()) + text[len(text.rstrip(_SEPARATORS)) :]
    if os.path.lexists(text) or not glob.has_magic(text):
        return [Path(text)]
    found = _matches(text)
    if not found:
        raise DataError(f"{text}: no such file, and as a pattern it matches nothing{_hint(text)}")
    return found


def _matches(pattern: str, *, ignore_case: bool = False) -> list[Path]:
    bases = [Path(Path(pattern).anchor)]
    for part in Path(pattern).parts[1 if bases[0].anchor else 0 :]:
        bases = [found for base in bases for found in _step(base, part, ignore_case=ignore_case)]
    if pattern.endswith(tuple(_SEPARATORS)):
        bases = [base for base in bases if _folder(base) is not None]
    return sorted(set(bases), key=lambda path: path.parts)


def _step(base: Path, part: str, *, ignore_case: bool) -> Iterator[Path]:
    """The entries of a folder that match one part of a pattern."""
    if part == _ANY_FOLDERS:
        yield from _folders_below(base)
    elif os.path.lexists(base / part):
        yield base / part
    elif glob.has_magic(part):
        names = [entry.name for entry in _entries(base) if part.startswith(".") or not entry.name.startswith(".")]
        for tried in (part, part.replace("[", "[[]")):
            matching = re.compile(fnmatch.translate(tried), re.IGNORECASE if ignore_case else 0).match
            if fitting := [name for name in names if matching(name)]:
                yield from (base / name for name in fitting)
                return


def _folders_below(top: Path) -> Iterator[Path]:
    """``top`` and each folder below it, once, links after folders; hidden ones are skipped."""
    seen: set[tuple[int, int]] = set()
    folders, links = [top], list[Path]()
    while folders or links:
        folder = (folders or links).pop()
        identity = _folder(folder)
        if identity is None or identity in seen:
            continue
        seen.add(identity)
        yield folder
        for entry in _entries(folder):
            if not entry.name.startswith("."):
                (links if entry.is_symlink() else folders).append(folder / entry.name)


def _folder(path: Path) -> tuple[int, int] | None:
    """Device and inode, which are equal for every name of a folder; None for other files, or if the system refuses."""
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISDIR(status.st_mode) else None


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder, sorted by name; empty if they cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return []


def _hint(pattern: str) -> str:
    if "\\" in pattern and "\\" not in _SEPARATORS:
        return "; write / between folders"
    if others := _matches(pattern, ignore_case=True):
        return f"; ignoring upper and lower case it would match {len(others):,}, the first {others[0]}"
    return ""

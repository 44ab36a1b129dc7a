"""Untrusted files: read within limits, never executed, and never followed out of their folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NoReturn

from tl_kit.config import TrustConfig
from tl_kit.errors import TlKitError

__all__ = ["check_inside", "is_plain_relative", "plain_number", "read_json", "sha256"]


def read_json(
    path: Path, *, error: type[TlKitError], limit: int = TrustConfig.json_bytes, folder: Path | None = None
) -> dict[str, Any]:
    """The JSON object in a file of at most ``limit`` bytes, in UTF-8.

    Raises ``error``, in one line that names the file, for anything else: JSON of absurd depth, NaN or Infinity, a
    duplicate key; and, if ``folder`` is given, a link that leads out of it.
    """
    if folder is not None:
        check_inside(path, folder, error=error)
    try:
        with path.open("rb") as file:
            text = file.read(limit + 1)
    except (OSError, ValueError) as failure:
        raise error(f"{path}: cannot be read ({getattr(failure, 'strerror', None) or failure})") from failure
    if len(text) > limit:
        raise error(f"{path}: larger than {limit:,} bytes, so it is no file of this kind")
    try:
        content = json.loads(text.decode("utf-8"), parse_constant=_no_number, object_pairs_hook=_unique)
    except RecursionError as failure:
        raise error(f"{path}: cannot be read as JSON (nested too deeply)") from failure
    except (ValueError, MemoryError) as failure:
        raise error(f"{path}: cannot be read as JSON ({failure})") from failure
    if not isinstance(content, dict):
        raise error(f"{path}: holds no JSON object")
    return content


def sha256(path: Path, *, error: type[TlKitError], told: Callable[[int], None] = lambda size: None) -> str:
    """SHA-256 of a file's bytes, in hex; ``told`` is called with the size of each piece that is done.

    Raises ``error`` if it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
                told(len(chunk))
    except OSError as failure:
        raise error(f"{path}: cannot be read ({failure.strerror})") from failure
    return digest.hexdigest()


def check_inside(path: Path, folder: Path, *, error: type[TlKitError]) -> None:
    """Raises ``error`` if links lead from ``path`` out of ``folder``.

    Links of the Hugging Face cache, from ``snapshots/REVISION`` and the folders of an ensemble's members below it to
    ``blobs`` of the same repository, are allowed.
    """
    try:
        root, real = folder.resolve(), path.resolve()
    except (OSError, ValueError, RuntimeError) as failure:  # a loop of links, a NUL
        raise error(f"{path}: cannot be resolved ({failure})") from failure
    snapshots = [each.parent for each in (root, *root.parents[:2]) if each.parent.name == "snapshots"]
    roots = [root, *(each.parent / "blobs" for each in snapshots)]
    if not any(real.is_relative_to(each) for each in roots):
        raise error(f"{path}: a link that leads out of its folder, to {real}; copy the file itself there")


def is_plain_relative(name: str) -> bool:
    """True if a name from a file stays below the folder to which it is relative, on every system."""
    if not name or "\0" in name:
        return False
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    return not (posix.is_absolute() or windows.drive or windows.root or ".." in posix.parts or ".." in windows.parts)


def plain_number(value: object, low: float, high: float) -> bool:
    """True if a value from JSON is a number within bounds; ``true`` and ``false`` are not numbers."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice[:60]!r} stands twice")
    return found

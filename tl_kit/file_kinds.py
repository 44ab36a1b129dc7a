"""Endings of image files; file signatures of archives and array stores, which are no images; and addresses."""

from __future__ import annotations

import os
import re
from pathlib import Path

__all__ = [
    "ARCHIVES",
    "HEAD",
    "IMAGE_ENDINGS",
    "TAR_ENDINGS",
    "ZIP_ENDINGS",
    "address_of",
    "kind_of",
    "may_be_there",
]

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".avif")
"""Common endings of image files. Who reads a form of data adds those that are usual in it."""

TAR_ENDINGS = (".tar", ".tgz", ".tbz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz")
ZIP_ENDINGS = (".zip",)
"""Endings of the archives that are read."""

HEAD = 264
"""The number of bytes at a file's beginning that are needed."""

ARCHIVES = frozenset({"zip", "gzip", "bzip2", "xz", "zstd", "7z", "rar", "tar"})
_SIGNATURES = (
    (0, b"PK\x03\x04", "zip"),
    (0, b"\x1f\x8b", "gzip"),
    (0, b"BZh", "bzip2"),
    (0, b"\xfd7zXZ\0", "xz"),
    (0, b"\x28\xb5\x2f\xfd", "zstd"),
    (0, b"7z\xbc\xaf'\x1c", "7z"),
    (0, b"Rar!", "rar"),
    (257, b"ustar", "tar"),
    (0, b"PAR1", "parquet"),
    (0, b"\x93NUMPY", "numpy"),
    (0, b"\x89HDF\r\n\x1a\n", "hdf5"),
    (0, b"version https://git-lfs", "git-lfs"),
)


def kind_of(head: bytes) -> str | None:
    """A file's kind by its first bytes: one of ``ARCHIVES``, ``numpy``, ``hdf5``, or ``git-lfs`` for a pointer."""
    return next((kind for place, magic, kind in _SIGNATURES if head.startswith(magic, place)), None)


# A path collapses two slashes, so one is enough. A drive's letter is no scheme.
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/+(.+)|hf:([^/].*)", re.IGNORECASE | re.DOTALL)


def address_of(path: Path | str) -> str | None:
    """The address that a path is, with two slashes: ``s3://bucket/imgs``, or ``hf:OWNER/NAME``; None for a path.

    Where a file or folder of that name exists, it is a path.
    """
    text = str(path)
    found = _ADDRESS.fullmatch(text)
    if found is None or os.path.lexists(text):
        return None
    return text if found[1] is None else f"{found[1].lower()}://{found[2]}"


def may_be_there(path: Path | str) -> bool:
    """True for a file or folder that exists, and for any address: only opening it tells."""
    return address_of(path) is not None or os.path.exists(path)  # noqa: PTH110 - Path.exists raises where it may not look

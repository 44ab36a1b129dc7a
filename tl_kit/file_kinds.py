"""File signatures of archives and array stores, which are neither images nor weights."""

from __future__ import annotations

__all__ = ["ARCHIVES", "HEAD", "kind_of"]

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
    (0, b"\x93NUMPY", "numpy"),
    (0, b"\x89HDF\r\n\x1a\n", "hdf5"),
    (0, b"version https://git-lfs", "git-lfs"),
)


def kind_of(head: bytes) -> str | None:
    """A file's kind by its first bytes: one of ``ARCHIVES``, ``numpy``, ``hdf5``, or ``git-lfs`` for a pointer."""
    return next((kind for place, magic, kind in _SIGNATURES if head.startswith(magic, place)), None)

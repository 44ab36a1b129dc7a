"""Files that hold images in a form that is not read: what to do with each."""

from __future__ import annotations

from pathlib import Path

__all__ = ["unpacking"]

_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".tbz", ".tbz2", ".xz", ".txz", ".zst", ".7z", ".rar")
_SIGNATURES = (  # place and content
    *((0, magic) for magic in (b"PK\x03\x04", b"\x1f\x8b", b"7z\xbc\xaf\x27\x1c", b"Rar!", b"BZh", b"\xfd7zXZ\0")),
    (0, b"\x28\xb5\x2f\xfd"),
    (257, b"ustar"),
)
_TABLES = (".xlsx", ".xls", ".ods", ".numbers")
_STORES = (
    *(".parquet", ".arrow", ".feather", ".h5", ".hdf5", ".npz", ".npy", ".mat", ".tfrecord", ".tfrecords", ".lmdb"),
    *(".mdb", ".pkl", ".pickle", ".pt", ".pth", ".db", ".sqlite", ".rec"),
)


def unpacking(file: Path) -> str:
    """For an archive, a table or a store of arrays, what it is and what to do first; empty for any other file."""
    ending = file.suffix.lower()
    if ending in _TABLES:
        return f"{file.name} is a spreadsheet: save it as CSV UTF-8"
    if ending in _STORES:
        return f"{file.name} is a store of arrays: write its images into class folders first"
    if ending in _ARCHIVES or _is_archive(file):
        return f"{file.name} is an archive: unpack it first, then name the folder that it leaves"
    return ""


def _is_archive(file: Path) -> bool:
    try:
        if not file.is_file():  # a pipe would wait for ever
            return False
        with file.open("rb") as stream:
            data = stream.read(512)
    except (OSError, ValueError):
        return False
    return any(data.startswith(magic, at) for at, magic in _SIGNATURES)

"""Spreadsheets, array stores and archives that cannot be read: each has a remedy."""

from __future__ import annotations

from pathlib import Path

from tl_kit.file_kinds import HEAD, kind_of

__all__ = ["unpacking"]

_UNREAD = (".zst", ".7z", ".rar")  # Python's library unpacks the others
_KINDS = ("zstd", "7z", "rar")
_TABLES = (".xlsx", ".xls", ".ods", ".numbers")
_STORES = (
    *(".arrow", ".feather", ".h5", ".hdf5", ".npz", ".npy", ".mat", ".tfrecord", ".tfrecords", ".lmdb"),
    *(".mdb", ".pkl", ".pickle", ".pt", ".pth", ".db", ".sqlite", ".rec"),
)


def unpacking(file: Path) -> str:
    """The format and the remedy for a spreadsheet, an array store or an archive that is not read; else empty."""
    ending = file.suffix.lower()
    if ending in _TABLES:
        return f"{file.name} is a spreadsheet: save it as CSV UTF-8"
    if ending in _STORES:
        return f"{file.name} is a store of arrays: write its images into class folders, or into Parquet"
    if ending in _UNREAD or _kind(file) in _KINDS:
        return f"{file.name} is an archive that is not read: unpack it, or pack it as .zip or .tar"
    return ""


def _kind(file: Path) -> str | None:
    try:
        if not file.is_file():  # reading a pipe would wait forever
            return None
        with file.open("rb") as stream:
            return kind_of(stream.read(HEAD))
    except (OSError, ValueError):
        return None

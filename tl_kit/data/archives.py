"""Archives, spreadsheets and array stores: their images cannot be read directly; each has a remedy."""

from __future__ import annotations

from pathlib import Path

from tl_kit.file_kinds import ARCHIVES, HEAD, kind_of

__all__ = ["unpacking"]

_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".tbz", ".tbz2", ".xz", ".txz", ".zst", ".7z", ".rar")
_TABLES = (".xlsx", ".xls", ".ods", ".numbers")
_STORES = (
    *(".parquet", ".arrow", ".feather", ".h5", ".hdf5", ".npz", ".npy", ".mat", ".tfrecord", ".tfrecords", ".lmdb"),
    *(".mdb", ".pkl", ".pickle", ".pt", ".pth", ".db", ".sqlite", ".rec"),
)


def unpacking(file: Path) -> str:
    """The format and the remedy for an archive, a spreadsheet or an array store; empty for any other file."""
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
        if not file.is_file():  # reading a pipe would wait forever
            return False
        with file.open("rb") as stream:
            return kind_of(stream.read(HEAD)) in ARCHIVES
    except (OSError, ValueError):
        return False

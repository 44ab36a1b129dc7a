"""Atomic writing: a file is written under a temporary name, synced and renamed, so it is complete or absent."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from tl_kit.errors import CheckpointError

__all__ = [
    "check_name",
    "check_writable",
    "csv_text",
    "new_numbered_folder",
    "remove_leftovers",
    "safe_name",
    "write_atomically",
    "write_csv",
    "write_json",
    "write_tensors",
    "write_text",
    "writing",
]

_SURROGATE = re.compile("[\ud800-\udfff]")  # Python's form of bytes in file names that are not UTF-8
_WHAT_TO_DO = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "free space, or choose another folder"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "make it writable, or choose another folder"),
}


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn an OSError inside into a CheckpointError that names the folder and the remedy."""
    try:
        yield
    except OSError as error:
        if not folder.is_dir() or error.errno == errno.ENOENT:  # it may be on its way out
            if (file := next((path for path in (folder, *folder.parents) if path.is_file()), None)) is not None:
                raise CheckpointError(f"{file}: is a file, not a folder; choose another folder") from error
            gone = [path for path in (folder, *folder.parents) if not path.exists()]
            raise CheckpointError(
                f"{gone[-1] if gone else folder}: has vanished; nothing more can be written there"
            ) from error
        advice = f"; {_WHAT_TO_DO[error.errno]}" if error.errno in _WHAT_TO_DO else ""
        raise CheckpointError(f"{folder}: cannot be written ({error.strerror or error}){advice}") from error


def check_writable(folder: Path) -> None:
    """Raises CheckpointError unless files can be made in the folder, or in the one above it that exists."""
    existing = next((path for path in (folder, *folder.absolute().parents) if path.exists()), folder)
    with writing(existing), TemporaryFile(dir=existing):
        pass


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` make the file under a temporary name beside ``path``, then sync and rename it.

    Raises CheckpointError if the system refuses; ``path`` is then unchanged, and the temporary file is removed.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with writing(path.parent):
            write(temporary)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], *, metadata: Mapping[str, str]) -> None:
    """Write a safetensors file, atomically. The tensors are on the CPU, contiguous, and share no memory."""

    def write(temporary: Path) -> None:
        try:
            safetensors.torch.save_file(dict(tensors), str(temporary), metadata=dict(metadata))
        except SafetensorError as error:  # only its text contains the system's error number
            number = re.search(r"os error (\d+)|code: (\d+)", str(error))  # the second: up to safetensors 0.5
            if number is None:
                raise
            code = int(number[1] or number[2])
            raise OSError(code, os.strerror(code)) from error

    write_atomically(path, write)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of a killed process; no other process may be writing in ``folder``."""
    for file in folder.glob(".*.tmp"):
        with suppress(OSError):
            file.unlink()


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write a JSON object, atomically, in UTF-8; bytes of file names that are not UTF-8 become ``\\udc..`` escapes."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    text = _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    write_atomically(path, lambda temporary: _write_text(temporary, text))


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, atomically."""
    write_atomically(path, lambda temporary: _write_text(temporary, text))


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file with a header, atomically. File names that are not UTF-8 keep their bytes."""

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            file.writelines(csv_text([header]))
            file.writelines(csv_text(rows))

    write_atomically(path, write)


def csv_text(rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """CSV rows, each ended by a newline, that every reader reads back unchanged.

    Python before 3.13 does not quote carriage returns, and then cannot read them back.
    """
    for row in rows:
        line = io.StringIO()
        odd = any(isinstance(cell, str) and "\r" in cell for cell in row)
        csv.writer(line, lineterminator="\n", quoting=csv.QUOTE_ALL if odd else csv.QUOTE_MINIMAL).writerow(row)
        yield line.getvalue()


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")  # the same bytes on every system


def check_name(folder: Path) -> None:
    """Raises CheckpointError for a folder whose name is not Unicode: safetensors could write there, but not read."""
    try:
        str(folder).encode()
    except UnicodeEncodeError as error:
        raise CheckpointError(f"--out {folder}: has bytes that are not UTF-8; choose another name") from error


def safe_name(name: str) -> str:
    """The name with a hyphen in the place of every character that a file name should not have."""
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in name)


def new_numbered_folder(parent: Path, stem: str) -> Path:
    """Make and return ``parent/stem-n`` with the first free n from 1; safe if two runs call it at the same time."""
    for number in range(1, 1_000_000):
        folder = parent / f"{stem}-{number}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise CheckpointError(f"{folder}: cannot be made ({error.strerror}); choose another --out") from error
        return folder
    raise CheckpointError(f"{parent}: no free number for {stem}; choose --out")

"""Files that are whole or absent: written under a temporary name, synced, renamed."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from tl_kit.errors import CheckpointError

__all__ = ["check_name", "csv_text", "new_numbered_folder", "write_atomically", "write_csv", "write_json"]

_SURROGATE = re.compile("[\ud800-\udfff]")  # Python's form of bytes in file names that are not UTF-8


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` make the file under a temporary name beside ``path``, then sync and rename it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write a JSON object, atomically, in UTF-8; of names that are none, the odd bytes as ``\\udc..`` escapes."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    text = _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    write_atomically(path, lambda temporary: _write_text(temporary, text))


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file with a header, atomically. File names that are not UTF-8 keep their bytes."""

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            file.writelines(csv_text([header]))
            file.writelines(csv_text(rows))

    write_atomically(path, write)


def csv_text(rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """CSV rows, each ended by a newline, that any reader gives back as they are.

    Python before 3.13 leaves a carriage return without quotes, which it cannot read again.
    """
    for row in rows:
        line = io.StringIO()
        odd = any(isinstance(cell, str) and "\r" in cell for cell in row)
        csv.writer(line, lineterminator="\n", quoting=csv.QUOTE_ALL if odd else csv.QUOTE_MINIMAL).writerow(row)
        yield line.getvalue()


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def check_name(folder: Path) -> None:
    """Raises CheckpointError for a folder whose name is not Unicode: safetensors writes there, and cannot read it."""
    try:
        str(folder).encode()
    except UnicodeEncodeError as error:
        raise CheckpointError(f"--out {folder}: has bytes that are not UTF-8; choose another name") from error


def new_numbered_folder(parent: Path, stem: str) -> Path:
    """Make and return ``parent/stem-n`` with the first free n from 1; safe when two runs ask at once."""
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

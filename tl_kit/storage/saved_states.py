"""Saved states on disk: the last two, each with a checksum, so that one that is torn or damaged is passed over.

A state is ``NAME.safetensors`` (tensors; all else as JSON text in its header) and, written after it, ``NAME.json`` with
the SHA-256 of that file. Both appear by renaming. Nothing of a state is ever unpickled or executed.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from safetensors import SafetensorError

from tl_kit.errors import CheckpointError
from tl_kit.storage.atomic import remove_leftovers, write_json, write_tensors, writing
from tl_kit.storage.tensor_tree import pack, unpack

__all__ = ["STATE", "StateFolder", "read_state", "write_state"]

STATE = "state"
FORMAT = 1
_TENSORS, _CHECK = ".safetensors", ".json"
_KEEP = 2


def write_state(folder: Path, name: str, tree: object) -> int:
    """Write a state; returns its bytes. Raises CheckpointError where the system refuses, and leaves nothing then."""
    values, tensors = pack(tree)
    file = folder / f"{name}{_TENSORS}"
    try:
        write_tensors(file, tensors, metadata={"state": json.dumps(values, allow_nan=False)})
        size = file.stat().st_size
        write_json(folder / f"{name}{_CHECK}", {"format": FORMAT, "bytes": size, "sha256": _digest(file)})
    except BaseException:
        with suppress(OSError):
            file.unlink()
        raise
    return size


def read_state(folder: Path, name: str) -> Any:
    """What was written. Raises CheckpointError, in one line, for a state that is missing, torn, damaged or foreign."""
    file = folder / f"{name}{_TENSORS}"
    try:
        check = json.loads((folder / f"{name}{_CHECK}").read_text(encoding="utf-8"))
        if not isinstance(check, dict) or check.get("format") != FORMAT:
            raise ValueError("not in a format that this version of tl-kit reads")
        if check.get("sha256") != _digest(file):
            raise ValueError("its checksum is another")
        with safetensors.safe_open(str(file), framework="pt") as opened:
            values = json.loads((opened.metadata() or {}).get("state", ""))
        return unpack(values, safetensors.torch.load_file(str(file)))
    except (OSError, ValueError, RecursionError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise CheckpointError(f"{file}: damaged ({reason})") from error


def _digest(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


class StateFolder:
    """The numbered states of one run, in ``folder/state``. One process at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / STATE

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._numbers())

    def save(self, tree: object) -> int:
        """Write the next state, then drop all but the last two; returns its bytes. Raises as ``write_state``."""
        with writing(self.folder.parent):
            self.folder.mkdir(exist_ok=True)
        numbers = self._numbers()
        number = max(numbers, default=0) + 1
        size = write_state(self.folder, _name(number), tree)
        for old in sorted([*numbers, number])[:-_KEEP]:
            self._drop(old)
        return size

    def load(self, *, drop: bool = False) -> tuple[Mapping[str, Any] | None, list[str]]:
        """The newest state that is whole, None without any; and a line for each newer one that is not.

        With ``drop``, those are removed: they must not stand among the last two. Raises CheckpointError where there are
        states and none can be read.
        """
        notes: list[str] = []
        numbers = sorted(self._numbers(), reverse=True)
        for number in numbers:
            try:
                found = read_state(self.folder, _name(number))
                if isinstance(found, Mapping):
                    for damaged in numbers[: len(notes)] if drop else ():
                        self._drop(damaged)
                    return found, notes
                notes.append(f"{self.folder / _name(number)}{_TENSORS}: damaged (no state)")
            except CheckpointError as error:
                notes.append(str(error))
        if not notes:
            return None, []
        raise CheckpointError(
            f"{notes[0]}, and so is every state before it: remove {self.folder}, and --resume starts the run over"
        )

    def clean(self) -> None:
        """Remove what a process that was killed has left half done: temporary files, tensors without their check."""
        remove_leftovers(self.folder)
        for file in self.folder.glob(f"state-*{_TENSORS}"):
            if not file.with_suffix(_CHECK).exists():
                file.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove all states, and whatever else is in their folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _numbers(self) -> list[int]:
        """Of all states that were written to their end, and may have been damaged since."""
        names = [re.fullmatch(r"state-(\d{1,9})\.json", file.name) for file in self.folder.glob("*")]
        return sorted({int(name[1]) for name in names if name})

    def _drop(self, number: int) -> None:
        with suppress(OSError):
            (self.folder / f"{_name(number)}{_CHECK}").unlink(missing_ok=True)
            (self.folder / f"{_name(number)}{_TENSORS}").unlink(missing_ok=True)


def _name(number: int) -> str:
    return f"state-{number:06d}"

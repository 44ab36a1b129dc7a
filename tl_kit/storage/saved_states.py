"""Saved states on disk: the last two are kept, each with a checksum, so that a torn or damaged one is skipped.

A state is ``NAME.pt``, in torch's format, and then ``NAME.json`` with the SHA-256 of that file. Both appear by
renaming. States are read with ``weights_only``: nothing in them is ever executed.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tl_kit.errors import CheckpointError, first_line
from tl_kit.storage.atomic import remove_leftovers, write_atomically, write_json, writing
from tl_kit.untrusted import read_json, sha256
from tl_kit.zoo.state_dict_files import check_archive

__all__ = ["STATE", "StateFolder", "read_state", "write_state"]

STATE = "state"
FORMAT = 2
_TENSORS, _CHECK = ".pt", ".json"
_KEEP = 2


def write_state(folder: Path, name: str, tree: object) -> int:
    """Write a state; returns its bytes. If the system refuses, raises CheckpointError and leaves no files.

    It may contain mappings with keys that are strings or integers, lists, tuples, tensors, strings, numbers, booleans
    and None. Raises TypeError for anything else.
    """
    plain, file = _plain(tree, ""), folder / f"{name}{_TENSORS}"
    try:
        write_atomically(file, lambda temporary: _write(temporary, plain))
        size = file.stat().st_size
        digest = sha256(file, error=CheckpointError)
        write_json(folder / f"{name}{_CHECK}", {"format": FORMAT, "bytes": size, "sha256": digest})
    except BaseException:
        with suppress(OSError):
            file.unlink()
        raise
    return size


def _plain(value: object, name: str) -> object:
    """A copy in the types that are read back, with tensors on the CPU in the same memory layout.

    A tensor that is a view of a larger one is copied, because torch would save the larger one with it.
    """
    if isinstance(value, Tensor):
        tensor = value.detach().cpu()
        return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()
    if isinstance(value, Mapping):
        return {_key(key): _plain(item, f"{name}/{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return (tuple if isinstance(value, tuple) else list)(_plain(item, f"{name}/...") for item in value)
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise TypeError(f"{name}: a {type(value).__name__} cannot be saved")


def _key(key: object) -> object:
    if type(key) in (str, int):
        return key
    raise TypeError(f"a key of type {type(key).__name__} cannot be saved")


def _write(file: Path, tree: object) -> None:
    """Raises OSError if the system refuses, even where torch would raise an error of its own."""
    try:
        with file.open("wb") as stream:
            torch.save(tree, stream)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from error
        raise


def read_state(folder: Path, name: str) -> Any:
    """Read a state. Raises CheckpointError, in one line, for a state that is missing, torn, damaged or foreign."""
    file, check = folder / f"{name}{_TENSORS}", read_json(folder / f"{name}{_CHECK}", error=CheckpointError)
    if check.get("format") != FORMAT:
        raise CheckpointError(f"{folder / name}{_CHECK}: not in a format that this version of tl-kit reads")
    try:
        if check.get("sha256") != sha256(file, error=CheckpointError):
            raise ValueError("its checksum is another")
        check_archive(file, error=CheckpointError)
        return torch.load(file, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(f"{file}: damaged ({first_line(error)})") from error


class StateFolder:
    """The numbered states of one run, in ``folder/state``. One process at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / STATE

    def __bool__(self) -> bool:
        """True where there is at least one state."""
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
        """The newest intact state (None without any), and a line for each newer state that is damaged.

        With ``drop``, damaged ones are removed, so that they do not count among the last two. Raises CheckpointError if
        there are states and none can be read.
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
        """Remove the leftovers of a killed process: temporary files, and states without their checksum."""
        remove_leftovers(self.folder)
        for file in self.folder.glob(f"state-*{_TENSORS}"):
            if not file.with_suffix(_CHECK).exists():
                file.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove all states, and everything else in their folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _numbers(self) -> list[int]:
        """The numbers of all states that were written completely; they may have been damaged since."""
        names = [re.fullmatch(r"state-(\d{1,9})\.json", file.name) for file in self.folder.glob("*")]
        return sorted({int(name[1]) for name in names if name})

    def _drop(self, number: int) -> None:
        with suppress(OSError):
            (self.folder / f"{_name(number)}{_CHECK}").unlink(missing_ok=True)
            (self.folder / f"{_name(number)}{_TENSORS}").unlink(missing_ok=True)


def _name(number: int) -> str:
    return f"state-{number:06d}"

"""A file of rows that is written as they come, and can be taken up again after the process was killed."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from tl_kit.config import RowFormat, StreamConfig
from tl_kit.errors import CheckpointError, ConfigError, DataError
from tl_kit.inference.prediction import Prediction
from tl_kit.inference.streaming.marks import InputDigests
from tl_kit.inference.streaming.parquet_rows import write_parquet
from tl_kit.inference.streaming.row_texts import Rows
from tl_kit.storage.atomic import write_atomically, write_json, writing
from tl_kit.storage.lock import FolderLock
from tl_kit.untrusted import read_json

__all__ = ["Journal", "State", "partial_of"]

_FORMAT = 2


def partial_of(out: Path) -> Path:
    """The temporary name of a file that is not complete."""
    return out.with_name(f"{out.name}.partial")


@dataclass(frozen=True)
class State:
    """The secured part: ``rows``, the ``size`` of their file in bytes, how many ``failed``, and two digests.

    ``place`` is that of the next image in its batch. ``names`` and ``marks`` are the digests of :class:`InputDigests`.
    """

    rows: int = 0
    size: int = 0
    failed: int = 0
    place: int = 0
    names: str = field(default_factory=lambda: InputDigests().names)
    marks: str = field(default_factory=lambda: InputDigests().marks)


class Journal:
    """The rows of one ``out``: at first under the name ``OUT.partial``, with its state in ``OUT.partial.json``.

    One process at a time has it. ``made_by`` is what a resumed run must share, by name: values are plain JSON.
    """

    def __init__(
        self, out: Path, form: RowFormat, top: int, made_by: Mapping[str, Any], *, config: StreamConfig
    ) -> None:
        self.out, self._form, self._config = out, form, config
        self._rows = Rows("csv" if form == "csv" else "jsonl", top)
        self.made_by = dict(made_by)
        self.partial = partial_of(out)
        self._state_file = self.partial.with_name(f"{self.partial.name}.json")
        self._lock = FolderLock(out.parent, f".{out.name}.lock")
        self._file: IO[bytes] | None = None
        self._secured = time.monotonic()
        self.state = State()

    def begin(self, *, resume: bool) -> State:
        """Open the file, and return the state from which to go on.

        Raises ConfigError or DataError if there is a part already and it was not to be resumed, if the part was made
        with another model or other options, and if the file to resume is complete.
        """
        found = self._read_state() if self.partial.exists() else None
        if found is not None and not resume:
            raise ConfigError(
                f"{self.partial}: holds {found.rows:,} rows of a run that was interrupted; go on with --resume, or "
                "remove it to begin again"
            )
        if resume and not self.partial.exists() and self.out.exists():
            raise DataError(f"--resume: {self.out} is complete; remove it to predict again")
        self.state = found or State()
        with writing(self.partial.parent):
            self._file = self.partial.open("r+b" if found is not None else "wb")
            if found is not None:
                if os.fstat(self._file.fileno()).st_size < found.size:
                    raise DataError(f"--resume: {self.partial} is shorter than it was; remove it to begin again")
                self._file.truncate(found.size)
                self._file.seek(found.size)
            else:
                self._file.write(self._rows.header.encode())
        return self.state

    def add(self, predictions: Sequence[Prediction]) -> None:
        """Write rows. They are secured by :meth:`secure`."""
        assert self._file is not None
        with writing(self.partial.parent):
            self._file.write(self._rows.text(predictions).encode("utf-8", "surrogateescape"))

    def secure(self, state: State, *, now: bool = False) -> None:
        """Note that the rows so far are those of ``state`` (without its size), if it is time for that."""
        if not now and time.monotonic() - self._secured < self._config.secure_seconds:
            return
        assert self._file is not None
        with writing(self.partial.parent):
            self._file.flush()
            os.fsync(self._file.fileno())
            size = self._file.tell()
        self.state = replace(state, size=size)
        content = {"format": _FORMAT, "made_by": self.made_by, **vars(self.state)}
        write_json(self._state_file, content)
        self._secured = time.monotonic()

    def finish(self) -> None:
        """Give the complete file its name."""
        assert self._file is not None
        self._file.close()
        with writing(self.partial.parent):
            if self._form == "parquet":
                write_atomically(self.out, lambda path: write_parquet(self.partial, path, config=self._config))
                self.partial.unlink()
            else:
                self.partial.replace(self.out)
            self._state_file.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file and let other processes have it."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
        self._lock.release()

    def _read_state(self) -> State | None:
        """The state of the part; None if nothing of it was secured."""
        if not self._state_file.exists():
            return None
        content = read_json(self._state_file, error=CheckpointError, folder=self._state_file.parent)
        given, numbers = content.get("made_by"), ("rows", "size", "failed", "place")
        digests = all(isinstance(content.get(name), str) for name in ("names", "marks"))
        if content.get("format") != _FORMAT or not isinstance(given, dict) or not digests:
            raise CheckpointError(
                f"{self._state_file}: is no state of this version; remove it and {self.partial} to begin again"
            )
        if any(type(content.get(name)) is not int or content[name] < 0 for name in numbers):
            raise CheckpointError(f"{self._state_file}: is broken; remove it and {self.partial} to begin again")
        for name, value in self.made_by.items():
            if given.get(name) != value:
                raise ConfigError(
                    f"--resume: {self.partial} was begun with another {name} ({_shown(given.get(name))}, and now "
                    f"{_shown(value)}); give the same, or remove it to begin again"
                )
        rows, size, failed, place = (content[name] for name in numbers)
        return State(rows, size, failed, place, content["names"], content["marks"])


def _shown(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"

"""Kept checkpoint: the files of a checkpoint folder in memory, so that a fitted estimator needs no folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tl_kit.config import DecodeConfig, RuntimeConfig
from tl_kit.errors import CheckpointError
from tl_kit.inference.predictor import Predictor, load
from tl_kit.options_file import OPTIONS
from tl_kit.storage.atomic import write_atomically, writing
from tl_kit.storage.checkpoint import META
from tl_kit.storage.lock import LOCK

__all__ = ["KeptCheckpoint"]


class KeptCheckpoint:
    """The files of one checkpoint, by name, and the predictor that is made of them when it is first asked for.

    A pickle or a copy holds the files alone: it opens on machines with other devices, and the predictor is made again.
    """

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = dict(files)
        self._opened: dict[object, Predictor] = {}

    @classmethod
    def read(cls, folder: Path, *, images_known: bool = True) -> KeptCheckpoint:
        """The files of a finished run's folder, without those of runs inside it and those that name its images.

        Its record keeps no path: the folders of the data and of the run are temporary. ``images_known``: False where
        an image was given as no file, so that the digests in the record are not those of the user's files.
        """
        paths = sorted(path for path in folder.iterdir() if path.is_file() and path.name not in (LOCK, OPTIONS))
        files = {path.name: path.read_bytes() for path in paths}
        record = json.loads(files[META])
        for holder, name in (("config", "data"), ("config", "out"), ("data", "root")):
            record.get(holder, {}).pop(name, None)
        record.pop("checkpoint", None)
        if not images_known:
            record["data"]["unknown"] = True
        files[META] = (json.dumps(record, indent=2) + "\n").encode("ascii")
        return cls(files)

    def write(self, folder: Path) -> Path:
        """Write the files to a new or empty folder. Raises CheckpointError for any other."""
        with writing(folder):
            if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                raise CheckpointError(f"{folder}: is not an empty folder; choose another")
            folder.mkdir(parents=True, exist_ok=True)
        for name in sorted(self.files, key=lambda each: each == META):  # what makes it a checkpoint comes last
            write_atomically(folder / name, partial(_write_bytes, self.files[name]))
        return folder

    def predictor(self, decode: DecodeConfig, runtime: RuntimeConfig) -> Predictor:
        """The predictor for these limits and this device, made once."""
        key = (decode, runtime)
        found = self._opened.get(key)
        if found is None:
            with TemporaryDirectory(prefix="tlkit-") as folder:
                found = load(self.write(Path(folder)), decode=decode, runtime=runtime)
            self._opened = {key: found}  # another thread may ask for another device
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {"files": self.files}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.files, self._opened = dict(state["files"]), {}


def _write_bytes(content: bytes, path: Path) -> None:
    path.write_bytes(content)

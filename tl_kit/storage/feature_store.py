"""The feature store: the trunk's outputs on disk, computed once per image and view, shared by runs, limited in size.

A key identifies everything that the numbers depend on (frozen weights, cut, preprocessing, precision, versions). Under
this key, each run adds its rows as a few immutable shards: memory-mapped arrays with lists of their rows. They appear
by renaming, so two simultaneous runs at worst compute a row twice. The least recently used shards are evicted first.
"""

from __future__ import annotations

import os
import re
import shutil
import time
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tl_kit.config import CacheConfig
from tl_kit.errors import CheckpointError
from tl_kit.machine.user_cache import user_cache
from tl_kit.storage.atomic import write_json
from tl_kit.untrusted import read_json

__all__ = ["FeatureStore", "Shard", "cache_root", "clear", "evict", "shards"]

_PLAIN: dict[torch.dtype, np.dtype[Any]] = {
    torch.float32: np.dtype(np.float32),
    torch.bfloat16: np.dtype(np.int16),
    torch.float16: np.dtype(np.float16),
}
KEY_PATTERN = r"[0-9a-f]{32}"
_ABANDONED_AFTER = 3600.0  # seconds
_ATTEMPTS = 5
_BY_NAME = {str(dtype).removeprefix("torch."): dtype for dtype in _PLAIN}


@dataclass(frozen=True)
class Shard:
    """A shard: a list of rows (``.json``), their array (``.npy``), the size of both in bytes, the time of last use."""

    index: Path
    size: int
    used: float

    @property
    def array(self) -> Path:
        return self.index.with_suffix(".npy")

    def remove(self) -> None:
        """Delete the shard. Readers that have mapped the array keep it until they are done."""
        self.index.unlink(missing_ok=True)
        self.array.unlink(missing_ok=True)


def shards(root: Path) -> list[Shard]:
    """All shards below ``root``, least recently used first."""
    found = []
    for index in _listed(root, "*/*.json"):
        try:
            status = index.stat()
            found.append(Shard(index, status.st_size + index.with_suffix(".npy").stat().st_size, status.st_mtime))
        except OSError:  # deleted by another run
            continue
    return sorted(found, key=lambda shard: (shard.used, str(shard.index)))


def evict(root: Path, limit: int, *, keep: Collection[Path] = ()) -> int:
    """Delete the least recently used shards down to ``limit`` bytes, but no array in ``keep``; returns bytes freed.

    Leftovers of killed runs are deleted first.
    """
    freed = _sweep(root)
    found = shards(root)
    excess = sum(shard.size for shard in found) - limit + freed
    for shard in found:
        if freed >= excess:
            break
        if shard.array not in keep:
            shard.remove()
            freed += shard.size
    return freed


def _sweep(root: Path) -> int:
    """Remove temporary files, and arrays without a list, that have not changed for an hour."""
    freed, before = 0, time.time() - _ABANDONED_AFTER
    unlisted = [array for array in _listed(root, "*/*.npy") if not array.with_suffix(".json").exists()]
    for file in [*_listed(root, "*/.*.tmp"), *unlisted]:
        try:
            status = file.stat()
            if status.st_mtime < before:
                file.unlink()
                freed += status.st_size
        except OSError:
            continue
    return freed


def clear(root: Path) -> int:
    """Delete everything that belongs to the cache, and nothing else; returns the bytes freed."""
    freed = 0
    for folder in _listed(root, "*"):
        if re.fullmatch(KEY_PATTERN, folder.name) and folder.is_dir():
            freed += sum(map(_size, _listed(folder, "*")))
            shutil.rmtree(folder, ignore_errors=True)
    return freed


def _listed(root: Path, pattern: str) -> list[Path]:
    """The paths that match, sorted; listed again if another run removes a folder meanwhile."""
    for _ in range(_ATTEMPTS):
        try:
            return sorted(root.glob(pattern))
        except FileNotFoundError:
            continue
    return []


def _size(file: Path) -> int:
    """The file's size; 0 if another run has just renamed or deleted it."""
    try:
        return file.stat().st_size
    except OSError:
        return 0


@dataclass
class FeatureStore:
    """The rows under one key. A row is named by a string (image digest and view)."""

    root: Path
    key: str
    limit: int
    _rows: dict[str, tuple[NDArray[Any], int]] = field(default_factory=dict, repr=False)
    _dtype: torch.dtype = torch.float32

    _opened: set[Path] = field(default_factory=set, repr=False)

    def __post_init__(self) -> None:
        self.refresh()

    def refresh(self) -> None:
        """Open the shards that other runs have added since the last call."""
        for index in _listed(self.root / self.key, "*.json"):
            if index not in self._opened:
                self._open(index)

    def missing(self, names: Sequence[str]) -> list[int]:
        """Positions of the names that have no row; each name counts once."""
        first = {name: position for position, name in reversed(list(enumerate(names)))}
        return sorted(position for name, position in first.items() if name not in self._rows)

    def get(self, names: Sequence[str]) -> Tensor:
        """Rows (n, ...) in the order of the names. Raises KeyError for a name without a row."""
        stacked = np.stack([array[row] for array, row in (self._rows[name] for name in names)])
        tensor = torch.from_numpy(stacked)
        return tensor.view(torch.bfloat16) if self._dtype is torch.bfloat16 else tensor

    def add(self, names: Sequence[str], batches: Iterator[Tensor]) -> None:
        """Write one shard whose rows, in the order of ``names``, arrive in batches (n, ...) of one type and shape.

        This store keeps the rows from now on, even if another run deletes the shard or clears the cache.
        """
        if not names:
            return
        folder = self.root / self.key
        stem = f"{os.getpid()}-{uuid.uuid4().hex[:12]}"
        temporary, index = folder / f".{stem}.npy.tmp", folder / f"{stem}.json"
        try:
            array, dtype = self._write(temporary, len(names), batches)
            own = array if os.name == "posix" else None  # on other systems a mapped file cannot be renamed
            del array
            _publish(temporary, index, names, dtype)
        except OSError as error:
            reason = error.strerror or error
            raise CheckpointError(
                f"{folder}: cannot be written ({reason}); free space, or lower --cache-size"
            ) from error
        finally:
            temporary.unlink(missing_ok=True)
        if own is None:
            self._open(index)
        else:
            self._take_in(index, own, names, dtype)
        evict(self.root, self.limit, keep={index.with_suffix(".npy") for index in self._opened})

    def note(self, name: str, content: Mapping[str, object]) -> None:
        """Write a JSON file beside the rows; nothing is written if another run clears the cache meanwhile."""
        _made(self.root / self.key)
        _note(self.root / self.key / name, content)

    @staticmethod
    def _write(path: Path, rows: int, batches: Iterator[Tensor]) -> tuple[NDArray[Any], torch.dtype]:
        array: Any = None
        start, dtype = 0, torch.float32
        for batch in batches:
            if array is None:
                dtype = batch.dtype
                shape = (rows, *batch.shape[1:])
                array = _mapped(path, _PLAIN[dtype], shape)
            plain = batch.contiguous().view(torch.int16) if dtype is torch.bfloat16 else batch
            array[start : start + len(batch)] = plain.numpy()
            start += len(batch)
        if start != rows:
            raise ValueError(f"{rows} rows were promised, {start} came")
        array.flush()
        return array, dtype

    def _open(self, index: Path) -> None:
        found = _read_shard(index)
        if found is None:  # deleted, torn or foreign: its rows are computed again
            return
        array, rows, dtype = found
        known = next(iter(self._rows.values()), None)
        if known is None or (dtype is self._dtype and array.shape[1:] == known[0].shape[1:]):
            self._take_in(index, array, rows, dtype)

    def _take_in(self, index: Path, array: NDArray[Any], rows: Sequence[str], dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._opened.add(index)
        self._rows.update({name: (array, row) for row, name in enumerate(rows)})


def _mapped(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """The array of a new file; tried again if another run clears the cache meanwhile."""
    for attempt in range(_ATTEMPTS):
        try:
            _made(path.parent)
            array: NDArray[Any] = np.lib.format.open_memmap(str(path), mode="w+", dtype=dtype, shape=shape)
            _reserve(path)
            return array
        except FileNotFoundError:
            if attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError


def _made(folder: Path) -> None:
    """Make a folder of the cache if it is missing."""
    for attempt in range(_ATTEMPTS):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileNotFoundError, FileExistsError):  # it may have existed, and been removed a moment later
            if attempt == _ATTEMPTS - 1:
                raise
        else:
            return


def _publish(temporary: Path, index: Path, names: Sequence[str], dtype: torch.dtype) -> None:
    """Publish a shard to other runs: its array first, then its list. Nothing is published if the cache was cleared."""
    try:
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(index.with_suffix(".npy"))
    except FileNotFoundError:
        return
    _note(index, {"dtype": str(dtype).removeprefix("torch."), "rows": list(names)})


def _note(path: Path, content: Mapping[str, object]) -> None:
    """Write a JSON file, unless the cache was cleared meanwhile; its values are then computed again next time."""
    try:
        write_json(path, content)
    except CheckpointError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            raise


def _read_shard(index: Path) -> tuple[NDArray[Any], list[str], torch.dtype] | None:
    """The array, the names of its rows and their dtype; None unless both files have the form that ``add`` writes."""
    try:
        content = read_json(index, error=CheckpointError)
        rows, dtype = content["rows"], _BY_NAME[content["dtype"]]
        array = np.load(index.with_suffix(".npy"), mmap_mode="r", allow_pickle=False)
        os.utime(index)
    except (CheckpointError, OSError, ValueError, KeyError, TypeError, EOFError, SyntaxError, MemoryError):
        return None
    if not isinstance(array, np.ndarray):  # an .npz archive opens as something else
        return None
    names = isinstance(rows, list) and all(isinstance(name, str) for name in rows)
    fits = names and array.dtype == _PLAIN[dtype] and array.ndim > 1 and len(array) == len(rows)
    return (array, rows, dtype) if fits else None


def _reserve(path: Path) -> None:
    """Allocate the file's blocks on disk: with a full disk, writing to unallocated mapped blocks kills the process."""
    if hasattr(os, "posix_fallocate"):
        with path.open("rb+") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def cache_root(config: CacheConfig) -> Path:
    """The cache folder of the trunk's outputs."""
    if config.directory is not None:
        return Path(config.directory)
    return user_cache() / "features"

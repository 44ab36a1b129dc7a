"""The cache: frozen networks' outputs and local copies of data sets, reported and cleared."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from tl_kit.config import CacheConfig
from tl_kit.data.forms.local_copies import LocalCopy, clear_copies, copies
from tl_kit.errors import CheckpointError
from tl_kit.plain_values import takes_plain_values
from tl_kit.storage.feature_store import Shard, cache_root, clear, shards
from tl_kit.untrusted import read_json

__all__ = ["CacheEntry", "CacheReport", "CopyEntry", "cache_report", "clear_cache"]


@dataclass(frozen=True)
class CacheEntry:
    """The rows of one trunk: weights, cut, preprocessing and precision. ``size`` in bytes, ``used`` in local time."""

    key: str
    rows: int
    size: int
    used: str


@dataclass(frozen=True)
class CopyEntry:
    """The local copy of the data set ``of``. ``size`` in bytes, ``used`` in local time."""

    of: str
    files: int
    size: int
    used: str


@dataclass(frozen=True)
class CacheReport:
    """The cache's folder, its limit and size in bytes, and its entries, most recently used first.

    ``copies`` are local copies of data sets (archives, tables of images, addresses), which have a bound of their own.
    """

    directory: str
    limit: int
    size: int
    entries: tuple[CacheEntry, ...]
    copies: tuple[CopyEntry, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        entries, held = [asdict(entry) for entry in self.entries], [asdict(entry) for entry in self.copies]
        return {**asdict(self), "entries": entries, "copies": held}


@takes_plain_values
def cache_report(directory: Path | None = None) -> CacheReport:
    """Report of the cache's content; an absent folder is an empty cache. One in ``directory`` has no copies."""
    root = cache_root(CacheConfig(directory=directory))
    found = sorted(shards(root), key=lambda shard: shard.index.parent.name)
    by_key = {key: list(group) for key, group in groupby(found, key=lambda shard: shard.index.parent.name)}
    latest = sorted(by_key.items(), key=lambda item: -max(shard.used for shard in item[1]))
    entries = tuple(_entry(key, group) for key, group in latest)
    held = () if directory is not None else tuple(_copy(each) for each in reversed(copies()))
    return CacheReport(str(root), int(CacheConfig().size_gb * 1e9), sum(e.size for e in entries), entries, held)


@takes_plain_values
def clear_cache(directory: Path | None = None) -> int:
    """Delete everything, local copies too unless a directory is named; returns the bytes freed."""
    return clear(cache_root(CacheConfig(directory=directory))) + (clear_copies() if directory is None else 0)


def _copy(copy: LocalCopy) -> CopyEntry:
    return CopyEntry(copy.of, copy.files, copy.size, _local_time(copy.used))


def _local_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(sep=" ", timespec="seconds")


def _entry(key: str, group: list[Shard]) -> CacheEntry:
    return CacheEntry(
        key=key,
        rows=sum(_rows(shard) for shard in group),
        size=sum(shard.size for shard in group),
        used=_local_time(max(shard.used for shard in group)),
    )


def _rows(shard: Shard) -> int:
    try:
        return len(read_json(shard.index, error=CheckpointError)["rows"])
    except (CheckpointError, KeyError, TypeError):
        return 0

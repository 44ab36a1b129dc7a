"""The feature cache: reports its content, and clears it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from tl_kit.config import CacheConfig
from tl_kit.errors import CheckpointError
from tl_kit.plain_values import takes_plain_values
from tl_kit.storage.feature_store import Shard, cache_root, clear, shards
from tl_kit.untrusted import read_json

__all__ = ["CacheEntry", "CacheReport", "cache_report", "clear_cache"]


@dataclass(frozen=True)
class CacheEntry:
    """The rows of one trunk: weights, cut, preprocessing and precision. ``size`` in bytes, ``used`` in local time."""

    key: str
    rows: int
    size: int
    used: str


@dataclass(frozen=True)
class CacheReport:
    """The cache's folder, its limit and size in bytes, and its entries, most recently used first."""

    directory: str
    limit: int
    size: int
    entries: tuple[CacheEntry, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {**asdict(self), "entries": [asdict(entry) for entry in self.entries]}


@takes_plain_values
def cache_report(directory: Path | None = None) -> CacheReport:
    """Report of the cache's content; an absent folder is an empty cache."""
    root = cache_root(CacheConfig(directory=directory))
    found = sorted(shards(root), key=lambda shard: shard.index.parent.name)
    by_key = {key: list(group) for key, group in groupby(found, key=lambda shard: shard.index.parent.name)}
    latest = sorted(by_key.items(), key=lambda item: -max(shard.used for shard in item[1]))
    entries = tuple(_entry(key, group) for key, group in latest)
    return CacheReport(str(root), int(CacheConfig().size_gb * 1e9), sum(e.size for e in entries), entries)


@takes_plain_values
def clear_cache(directory: Path | None = None) -> int:
    """Delete everything; returns the bytes freed."""
    return clear(cache_root(CacheConfig(directory=directory)))


def _entry(key: str, group: list[Shard]) -> CacheEntry:
    used = datetime.fromtimestamp(max(shard.used for shard in group)).astimezone()
    return CacheEntry(
        key=key,
        rows=sum(_rows(shard) for shard in group),
        size=sum(shard.size for shard in group),
        used=used.isoformat(sep=" ", timespec="seconds"),
    )


def _rows(shard: Shard) -> int:
    try:
        return len(read_json(shard.index, error=CheckpointError)["rows"])
    except (CheckpointError, KeyError, TypeError):
        return 0

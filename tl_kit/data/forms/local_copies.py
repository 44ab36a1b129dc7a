"""Local copies of data sets that are no folders: archives, tables of images, downloads; bounded, by content."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tl_kit.config import DecodeConfig
from tl_kit.errors import DataError
from tl_kit.machine.user_cache import user_cache
from tl_kit.reporting import SILENT, UNKNOWN, Reporter
from tl_kit.untrusted import sha256

try:
    import fcntl
except ImportError:  # Windows: a copy in use is not protected from being removed
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "UNPACKED",
    "CopyTerms",
    "LocalCopy",
    "Megabytes",
    "Room",
    "clear_copies",
    "copies",
    "copies_root",
    "copy_of",
    "inner_name",
    "key_of",
]

_VERSION = "3"  # of what is in a copy: another one makes them anew
_INDEX, _CONTENT = "copy.json", "content"
UNPACKED = "files"
"""In the copy of an archive, the folder with its members."""
_ABANDONED_AFTER = 3600.0  # seconds
_SLOW = 200_000_000  # bytes, of which a digest takes a second or more
_SPARED = 0.05  # of a small disk that stays free
_HELD: dict[Path, int] = {}  # lock files of the copies that this process reads, kept open until it ends


@dataclass(frozen=True)
class CopyTerms:
    """Bounds of local copies, and the reporter that shows how far one is."""

    bounds: DecodeConfig
    reporter: Reporter = SILENT


class Megabytes:
    """A stage of a reporter that counts megabytes (10^6 bytes), of a ``total`` of bytes; 0: nobody knows it."""

    def __init__(self, reporter: Reporter, stage: str, total: int) -> None:
        self._reporter, self._bytes, self._told = reporter, 0, 0
        self._total = -(-total // 1_000_000)  # rounded up
        reporter.start(stage, self._total or UNKNOWN)

    def add(self, size: int) -> None:
        """Count bytes."""
        self._bytes += size
        self._tell(self._bytes // 1_000_000)

    def finish(self) -> None:
        """Count what is left, a part of a megabyte."""
        self._tell(self._total or -(-self._bytes // 1_000_000))

    def _tell(self, done: int) -> None:
        done = min(done, self._total or done)
        if done > self._told:
            self._reporter.advance(done - self._told)
            self._told = done


class Room:
    """Bytes and files that one copy may take. ``take`` counts them while they are written."""

    def __init__(self, of: str, config: DecodeConfig, place: Path) -> None:
        usage = shutil.disk_usage(place)
        self.of, self.files, self.bytes = of, config.copy_files, int(config.copy_gb * 1e9)
        self.limit = f"--copy-size {config.copy_gb:g} GB"
        self.spared = min(config.copy_spares_gb * 1e9, usage.total * _SPARED)
        self.free = usage.free - int(self.spared)

    def file(self) -> None:
        """Count a file. Raises DataError beyond the bound."""
        self.files -= 1
        if self.files < 0:
            raise DataError(f"{self.of}: holds more files than are copied of one data set (DecodeConfig.copy_files)")

    def take(self, size: int) -> None:
        """Count bytes, before they are written. Raises DataError beyond the bound, or if the disk has no more."""
        self.bytes -= size
        self.free -= size
        if self.bytes < 0:
            raise DataError(f"{self.of}: its local copy would be larger than {self.limit}; raise it, or name a folder")
        if self.free < 0:
            raise DataError(
                f"{self.of}: the disk of {copies_root()} is too full for its local copy, beside which "
                f"{self.spared / 1e9:.2g} GB stay free; free space there, or set XDG_CACHE_HOME to another disk"
            )


@dataclass(frozen=True)
class LocalCopy:
    """A copy on disk: of what, the folder with its files, bytes, number of files and the time of last use."""

    of: str
    folder: Path
    size: int
    files: int
    used: float


def copies_root() -> Path:
    """The folder of all copies, in the user's cache; it need not exist."""
    return user_cache() / "data"


def inner_name(path: Path) -> Path | None:
    """The path of a file in a copy, below what it is a copy of; None for a file elsewhere."""
    root = copies_root()
    if not path.is_relative_to(root):
        return None
    parts = path.relative_to(root).parts[2:]  # behind the key and the folder of the content
    return Path(*parts[1:]) if parts[:1] == (UNPACKED,) else Path(*parts)


def key_of(files: Sequence[Path], *settings: str, reporter: Reporter = SILENT) -> str:
    """Key of a copy: SHA-256 of the files' names and bytes, and of the settings on which its content depends."""
    size = sum(file.stat().st_size for file in files if file.is_file())
    megabytes = Megabytes(reporter, "digest", size) if size >= _SLOW else None
    told = (lambda size: None) if megabytes is None else megabytes.add
    parts = [_VERSION, *settings]
    parts += [f"{file.name}\t{sha256(file, error=DataError, told=told)}" for file in files]
    if megabytes is not None:
        megabytes.finish()
    return hashlib.sha256("\n".join(parts).encode(errors="surrogatepass")).hexdigest()[:32]


def copy_of(of: str, key: str, *, fill: Callable[[Path, Room], None], terms: CopyTerms) -> Path:
    """The folder of the local copy with this key, which ``fill(folder, room)`` writes if it does not exist yet.

    A copy appears whole or not at all, also where Ctrl-C ends the work, and stays as long as a process reads it. One
    that lost a file, as a power cut or a person may bring about, is made anew. The least recently used of the others
    are removed beyond the bound. Raises DataError if it cannot be written, and as ``fill`` does.
    """
    root = copies_root()
    place = root / key
    if not _whole(place):
        try:
            _make(of, place, fill, terms.bounds)
        except OSError as error:
            raise DataError(f"{of}: no local copy can be written in {root} ({error.strerror or error})") from error
        _evict(root, int(terms.bounds.copy_gb * 1e9), keep=place)
    _hold(place)
    with suppress(OSError):
        os.utime(place / _INDEX)
    return place / _CONTENT


def copies() -> list[LocalCopy]:
    """All copies, least recently used first."""
    found = []
    for index in sorted(copies_root().glob(f"*/{_INDEX}")):
        with suppress(OSError, ValueError, KeyError, TypeError):
            content = json.loads(index.read_text(encoding="utf-8"))
            sizes = content["files"].values()
            found.append(
                LocalCopy(str(content["of"]), index.parent, sum(sizes), len(sizes), index.stat().st_mtime),
            )
    return sorted(found, key=lambda copy: (copy.used, str(copy.folder)))


def clear_copies() -> int:
    """Remove every copy that no other process reads, and what killed runs left; returns the bytes freed."""
    freed = 0
    root = copies_root()
    for place in sorted(root.iterdir()) if root.is_dir() else []:
        _release(place)
        if _in_use(place):
            continue
        freed += sum(file.lstat().st_size for file in place.rglob("*") if file.is_file())
        _remove(place)
    return freed


def _make(of: str, place: Path, fill: Callable[[Path, Room], None], config: DecodeConfig) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    _sweep(place.parent)
    temporary = Path(tempfile.mkdtemp(prefix=f".{os.getpid()}-", dir=place.parent))
    try:
        content = temporary / _CONTENT
        content.mkdir()
        _lock(temporary)
        fill(content, Room(of, config, content))
        files = {str(file.relative_to(content)): file.lstat().st_size for file in content.rglob("*") if file.is_file()}
        with (temporary / _INDEX).open("w", encoding="utf-8", errors="surrogateescape") as stream:
            json.dump({"of": of, "files": files}, stream)
            stream.flush()
            os.fsync(stream.fileno())
        if place.exists() and not _whole(place):
            _remove(place)
        with suppress(OSError):  # another process was faster: its copy has the same content
            temporary.rename(place)
    finally:
        _release(temporary)
        shutil.rmtree(temporary, ignore_errors=True)
    if not _whole(place):
        raise OSError(None, f"{place} cannot be made")


def _whole(place: Path) -> bool:
    """True if the copy has all of its files in their sizes."""
    try:
        content = json.loads((place / _INDEX).read_text(encoding="utf-8", errors="surrogateescape"))
        return all((place / _CONTENT / name).lstat().st_size == size for name, size in content["files"].items())
    except (OSError, ValueError, KeyError, AttributeError):
        return False


def _evict(root: Path, limit: int, *, keep: Path) -> None:
    found = copies()
    total = sum(copy.size for copy in found)
    for copy in found:
        if total <= limit:
            return
        if copy.folder != keep and not _in_use(copy.folder):
            _remove(copy.folder)
            total -= copy.size


def _sweep(root: Path) -> None:
    """Remove the unfinished copies of processes that are gone; young ones may not be locked yet."""
    before = time.time() - _ABANDONED_AFTER
    for place in root.glob(".*"):
        with suppress(OSError):
            if place.stat().st_mtime < before and not _in_use(place):
                shutil.rmtree(place, ignore_errors=True)


def _remove(place: Path) -> None:
    """Take the copy away at once, then delete its files: no half of one is ever read."""
    gone = place.with_name(f".gone-{os.getpid()}-{place.name}")
    with suppress(OSError):
        place.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def _hold(place: Path) -> None:
    """Keep other processes from removing the copy as long as this one lives."""
    if place not in _HELD:
        _lock(place)


def _lock(place: Path) -> None:
    if fcntl is None:
        return
    with suppress(OSError):
        file = os.open(place / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        _HELD[place] = file


def _release(place: Path) -> None:
    if (file := _HELD.pop(place, None)) is not None:
        os.close(file)


def _in_use(place: Path) -> bool:
    """True if a process holds the copy."""
    if fcntl is None:
        return False
    if place in _HELD:
        return True
    try:
        file = os.open(place / ".lock", os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(file)
    return False

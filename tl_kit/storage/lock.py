"""Folder lock: a file lock for one process per folder, which the system releases when the process ends."""

from __future__ import annotations

import errno
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from tl_kit.errors import CheckpointError
from tl_kit.storage.atomic import writing

__all__ = ["LOCK", "FolderLock"]

LOCK = ".lock"
_PATIENCE, _PAUSE = 0.1, 0.01  # seconds: a process that is just removing the file is not at work
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


class FolderLock:
    """An exclusive lock on ``folder/.lock``, or another ``name``, from the constructor to :meth:`release`.

    It ends with the process: a file that a killed process left behind locks nothing. On a file system without locks
    (some network file systems), nothing is locked, and a second run is not stopped. Raises CheckpointError if another
    process holds the lock.
    """

    def __init__(self, folder: Path, name: str = LOCK) -> None:
        # If the existence of the file were the lock, it would outlive a killed process.
        self._lock = FileLock(folder / name, timeout=_PATIENCE, thread_local=False, fallback_to_soft=False)
        with writing(folder):
            folder.stat()  # raises if it is missing; the library would make it
            try:
                self._lock.acquire(poll_interval=_PAUSE)
            except Timeout as error:
                raise CheckpointError(f"{folder}: another process is at work on this run; wait for it") from error
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise

    def release(self) -> None:
        """Remove the file and release the lock; later calls do nothing."""
        if self._lock.is_locked:
            with suppress(OSError):  # while the lock is held: others that opened the file notice that it was replaced
                Path(self._lock.lock_file).unlink()
            self._lock.release()

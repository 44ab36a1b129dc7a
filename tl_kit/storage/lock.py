"""One process a folder: a file lock that the system takes back when its process ends, however it ends."""

from __future__ import annotations

import errno
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from tl_kit.errors import CheckpointError
from tl_kit.storage.atomic import writing

__all__ = ["LOCK", "FolderLock"]

LOCK = ".lock"
_PATIENCE, _PAUSE = 0.1, 0.01  # seconds: whoever removes the file at this moment is not at work
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


class FolderLock:
    """An exclusive lock on ``folder/.lock``, held from the constructor to :meth:`release` or the process's end.

    A file that a killed process has left behind locks nothing. Where a file system has no locks (some network file
    systems), nothing is locked, and two runs are not kept apart. Raises CheckpointError where another process holds it.
    """

    def __init__(self, folder: Path) -> None:
        # A lock that is a file's mere existence would outlive a process that is killed.
        self._lock = FileLock(folder / LOCK, timeout=_PATIENCE, thread_local=False, fallback_to_soft=False)
        with writing(folder):
            folder.stat()  # the library would make it
            try:
                self._lock.acquire(poll_interval=_PAUSE)
            except Timeout as error:
                raise CheckpointError(f"{folder}: another process is at work on this run; wait for it") from error
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise

    def release(self) -> None:
        """Remove the file and give the lock back; later calls do nothing."""
        if self._lock.is_locked:
            with suppress(OSError):  # while it is held: who has opened it finds that it is not the file any more
                Path(self._lock.lock_file).unlink()
            self._lock.release()

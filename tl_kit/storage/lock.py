"""One process a folder: a lock that the system takes back when its process ends, however it ends."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from pathlib import Path

from tl_kit.errors import CheckpointError
from tl_kit.storage.atomic import writing

__all__ = ["LOCK", "FolderLock"]

LOCK = ".lock"
_HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK)


class FolderLock:
    """An exclusive lock on ``folder/.lock``, held from the constructor to :meth:`release` or the process's end.

    flock(2); on Windows msvcrt.locking. A file that a killed process has left behind locks nothing. Where a file system
    has no locks (some network file systems), nothing is locked, and two runs are not kept apart. Raises
    CheckpointError where another process holds it.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK
        while True:
            with writing(folder):
                self._file: int | None = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                _lock(self._file)
            except OSError as error:
                os.close(self._file)
                self._file = None
                if error.errno in _HELD:
                    raise CheckpointError(f"{folder}: another process is at work on this run; wait for it") from error
                return
            if self._is_the_file():
                return
            os.close(self._file)  # its last owner removed it between our opening and our locking

    def release(self) -> None:
        """Remove the file and give the lock back; later calls do nothing."""
        if self._file is None:
            return
        file, self._file = self._file, None
        if sys.platform == "win32":
            os.close(file)
        with suppress(OSError):
            self.path.unlink()
        if sys.platform != "win32":
            os.close(file)  # removed while it is held: who opens it now finds that it is not the file any more

    def _is_the_file(self) -> bool:
        assert self._file is not None
        try:
            return os.path.samestat(os.fstat(self._file), self.path.stat())
        except OSError:
            return False


def _lock(file: int) -> None:
    """Raises OSError: one of ``_HELD`` where another process has it."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

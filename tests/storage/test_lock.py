"""The lock of a folder: one process at a time, and none after its process is gone, however it went."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.torture.processes import NO_FORKS, Forked, script
from tl_kit.errors import CheckpointError
from tl_kit.storage.lock import LOCK, FolderLock

HOLD = """
import pathlib, sys, time
from tl_kit.storage.lock import FolderLock
lock = FolderLock(pathlib.Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""
forks = pytest.mark.skipif(NO_FORKS, reason="no fork server on this system")


def test_the_second_is_refused_until_the_first_is_done(tmp_path: Path) -> None:
    first = FolderLock(tmp_path)
    with pytest.raises(CheckpointError, match="another process is at work on this run"):
        FolderLock(tmp_path)
    first.release()
    first.release()
    assert not list(tmp_path.iterdir())
    FolderLock(tmp_path).release()


@forks
def test_a_process_that_is_killed_holds_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    process = Forked(script, HOLD, str(folder), log=tmp_path / "log")
    assert process.wait_for("held\n"), process.text()
    with pytest.raises(CheckpointError, match="another process"):
        FolderLock(folder)
    assert process.kill() == -9
    assert (folder / LOCK).exists()
    FolderLock(folder).release()


def test_a_file_that_was_removed_between_opening_and_locking_is_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first owner removes the file while the second has it open: the second must not hold what nobody can find."""
    opened = os.open
    first = FolderLock(tmp_path)

    def open_then_removed(path: Path, *arguments: int) -> int:
        file = opened(path, *arguments)
        first.release()
        return file

    monkeypatch.setattr(os, "open", open_then_removed)
    second = FolderLock(tmp_path)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="another process"):
        FolderLock(tmp_path)
    second.release()


CONTEND = """
import os, pathlib, sys
from tl_kit.errors import CheckpointError
from tl_kit.storage.lock import FolderLock

folder, held = pathlib.Path(sys.argv[1]), 0
while held < 50:
    try:
        lock = FolderLock(folder)
    except CheckpointError:
        continue
    os.close(os.open(folder / "alone", os.O_CREAT | os.O_EXCL))
    (folder / "alone").unlink()
    held += 1
    lock.release()
"""


@forks
def test_two_processes_that_take_and_release_it_without_pause_never_hold_it_together(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for process in [Forked(script, CONTEND, str(folder), log=tmp_path / f"log-{number}") for number in range(2)]:
        assert process.wait() == 0, process.text()
    assert not list(folder.iterdir())


def test_a_folder_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gone: has vanished"):
        FolderLock(tmp_path / "gone")


@pytest.mark.skipif(sys.platform == "win32", reason="flock")
def test_a_file_system_without_locks_locks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno
    import fcntl

    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    FolderLock(tmp_path).release()
    FolderLock(tmp_path).release()

"""Disks that are full: a small file system in memory, or a bound on the size of files."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import children

__all__ = ["FileLimit", "small_disk"]


@contextmanager
def small_disk(folder: Path, *, kilobytes: int) -> Iterator[Path]:
    """``folder`` as a file system of so many kilobytes; skips the test where none may be mounted."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    try:
        children.run(command, seconds=30).check_returncode()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no small file system may be mounted here")
    try:
        yield folder
    finally:
        children.run(["umount", "--lazy", folder], seconds=30).check_returncode()


@dataclass(frozen=True)
class FileLimit:
    """For :class:`Command`: no file may be larger; the signal that says so is ignored, as Python has it."""

    kilobytes: int

    def __call__(self) -> None:
        if sys.platform != "win32":
            import resource

            size = self.kilobytes * 1024
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

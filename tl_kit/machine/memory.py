"""Memory: how much the machine has, and the remedies where it runs out."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import torch

__all__ = ["free_memory", "is_out_of_memory", "peak_memory", "release_memory", "trim_memory"]

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")
_CPU_ALLOCATOR = "can't allocate memory"  # torch's own on a CPU raises a plain RuntimeError


def free_memory() -> int:
    """Bytes that this process may still take: the machine's, or less where a control group (container) bounds them.

    Every group above the process's own counts, of either version. Cached files that the kernel would give up count as
    free: reading images fills a container with them.
    """
    return min([int(psutil.virtual_memory().available), *(_left(folder) for folder in _groups())])


def _groups() -> list[Path]:
    """The folders of the control groups that this process is in, from its own one up."""
    try:
        lines = _OWN_CGROUP.read_text().splitlines()
    except OSError:
        lines = []
    found = [_CGROUPS, _CGROUPS / "memory"]  # in a container, its own group is often seen as the root
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not controllers or "memory" in controllers.split(","):
            base = _CGROUPS / "memory" if controllers else _CGROUPS
            folder = base / path.lstrip("/")
            found += [each for each in (folder, *folder.parents) if each.is_relative_to(base)]
    return list(dict.fromkeys(found))


def _left(folder: Path) -> int:
    """Bytes that a control group may still take; more than any machine has where it is not bounded."""
    for limit, used, cached in (
        ("memory.max", "memory.current", ("inactive_file", "active_file")),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file")),
    ):
        try:
            bound = int((folder / limit).read_text())  # "max" where there is none
            taken = int((folder / used).read_text())
            statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            return max(0, bound - taken + sum(int(statistics.get(name, 0)) for name in cached))
        except (OSError, ValueError):
            continue
    return sys.maxsize


def is_out_of_memory(error: BaseException) -> bool:
    """True where memory ran out, on a GPU or on the CPU."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and _CPU_ALLOCATOR in str(error)
    )


def release_memory() -> None:
    """Give back what nobody uses: to the kernel, and to the GPU's other processes."""
    trim_memory()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def trim_memory() -> bool:
    """Give free memory back to the kernel although glibc was told to keep it; True where some was.

    Blocks that are kept fit the network that used them: with a second one, holes between them add up. What is needed
    again is zeroed again: with that, about 0.2 seconds for a network with a gigabyte of activations.
    """
    if not sys.platform.startswith("linux"):
        return False
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return bool(trim(0)) if trim is not None else False


def peak_memory() -> int:
    """The most memory that this process has held so far, in bytes (resident set size)."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    with suppress(OSError):  # getrusage on Linux counts what the parent held when it started this process
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)  # getrusage(2): kilobytes on Linux

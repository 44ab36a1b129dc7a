"""Memory: the amount that is free, and remedies if it runs out."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import psutil
import torch

__all__ = [
    "free_memory",
    "in_halves",
    "in_portions",
    "is_out_of_memory",
    "peak_memory",
    "release_memory",
    "trim_memory",
]

_Key = TypeVar("_Key")
_Item = TypeVar("_Item")
_Found = TypeVar("_Found")
_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")
_CPU_ALLOCATOR = "can't allocate memory"  # torch's CPU allocator raises a plain RuntimeError with this text


def free_memory() -> int:
    """Bytes that this process may still allocate: the machine's free memory, or less in a control group (container).

    All parent groups count too, in both versions of control groups. Cached files that the kernel can drop count as
    free, since reading images fills a container with them.
    """
    return min([int(psutil.virtual_memory().available), *(_left(folder) for folder in _groups())])


def _groups() -> list[Path]:
    """The folders of this process's control groups, from its own group up."""
    try:
        lines = _OWN_CGROUP.read_text().splitlines()
    except OSError:
        lines = []
    found = [_CGROUPS, _CGROUPS / "memory"]  # in a container, the own group often appears as the root
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not controllers or "memory" in controllers.split(","):
            base = _CGROUPS / "memory" if controllers else _CGROUPS
            folder = base / path.lstrip("/")
            found += [each for each in (folder, *folder.parents) if each.is_relative_to(base)]
    return list(dict.fromkeys(found))


def _left(folder: Path) -> int:
    """Bytes that a control group may still allocate; more than any machine has if it has no limit."""
    for limit, used, cached in (
        ("memory.max", "memory.current", ("inactive_file", "active_file")),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file")),
    ):
        try:
            bound = int((folder / limit).read_text())  # "max" if there is no limit
            taken = int((folder / used).read_text())
            statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            return max(0, bound - taken + sum(int(statistics.get(name, 0)) for name in cached))
        except (OSError, ValueError):
            continue
    return sys.maxsize


def is_out_of_memory(error: BaseException) -> bool:
    """True if memory ran out, on a GPU or on the CPU."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and _CPU_ALLOCATOR in str(error)
    )


def in_portions(sizes: Mapping[_Key, int], most: int) -> Iterator[list[_Key]]:
    """The keys, in order, in groups whose sizes sum up to ``most`` at most; a larger one is by itself."""
    portion: list[_Key] = []
    held = 0
    for key, size in sizes.items():
        if portion and held + size > most:
            yield portion
            portion, held = [], 0
        portion.append(key)
        held += size
    if portion:
        yield portion


def in_halves(work: Callable[[Sequence[_Item]], list[_Found]], items: Sequence[_Item]) -> list[_Found]:
    """``work(items)``; where memory runs out, of half of them at a time. Raises the error for a single one."""
    try:
        return work(items)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error) or len(items) == 1:
            raise
    release_memory()
    half = len(items) // 2
    return [*in_halves(work, items[:half]), *in_halves(work, items[half:])]


def release_memory() -> None:
    """Return unused memory to the kernel, and to the other processes of the GPU."""
    trim_memory()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def trim_memory() -> bool:
    """Return free memory to the kernel although glibc was told to keep it; True if some was returned.

    Kept blocks fit the network that used them; with a second network, fragmentation grows. Memory that is needed again
    is zeroed again. This takes about 0.2 seconds for a network with a gigabyte of activations.
    """
    if not sys.platform.startswith("linux"):
        return False
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return bool(trim(0)) if trim is not None else False


def peak_memory() -> int:
    """The peak memory of this process so far, in bytes (resident set size)."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    with suppress(OSError):  # getrusage on Linux includes the parent's memory at the start of this process
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)  # getrusage(2): kilobytes on Linux

"""Start-up of the program: the seconds from the process's start to its work, where a shell started it."""

from __future__ import annotations

import time
from collections.abc import Mapping

__all__ = ["from_shell", "seconds_before", "with_startup"]

_from_shell = False


def from_shell() -> None:
    """Note that the process is the program itself, and not one that calls it."""
    global _from_shell
    _from_shell = True


def seconds_before() -> float:
    """The seconds since the process's start, where it is the program itself; else 0."""
    if not _from_shell:
        return 0.0
    import psutil

    return max(0.0, time.time() - float(psutil.Process().create_time()))


def with_startup(seconds: Mapping[str, float]) -> dict[str, float]:
    """A run's seconds by stage, just after its end, with ``startup``: Python's start, the imports, the options.

    The total is then that of the process. In a process that calls the program, the seconds are as they were.
    """
    if not _from_shell:
        return dict(seconds)
    import psutil

    total = max(time.time() - float(psutil.Process().create_time()), seconds["total"])
    startup = total - seconds["total"]
    first = {name: startup + at for name, at in seconds.items() if name == "first_batch"}
    return {"total": total, "startup": startup, **{n: s for n, s in seconds.items() if n != "total"}, **first}

"""Warnings of libraries that a user can do nothing about, silenced one by one."""

from __future__ import annotations

import re
import warnings

from tl_kit.machine.forks import ForkLock

__all__ = ["hush"]

_lock = ForkLock()


def hush(message: str) -> None:
    """Ignore warnings whose text begins so, from now on in this process.

    ``warnings.catch_warnings`` is not safe among threads, so the rule stays. Call this before each use: somebody else
    may have put the rules back.
    """
    rule = re.compile(re.escape(message), re.IGNORECASE)
    with _lock:
        if not any(action == "ignore" and found == rule for action, found, *_ in warnings.filters):
            warnings.filterwarnings("ignore", message=rule.pattern)

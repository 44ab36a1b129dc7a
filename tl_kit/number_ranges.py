"""Number ranges: each field of a configuration declares its range, and one function checks all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, is_dataclass
from typing import Any, get_args

from tl_kit.errors import ConfigError
from tl_kit.flags import Field, fields_of

__all__ = [
    "ANY",
    "AT_LEAST_ONE",
    "AT_LEAST_TWO",
    "BELOW_ONE",
    "FRACTION",
    "NOT_NEGATIVE",
    "OWN_CHECK",
    "POSITIVE",
    "SHARE",
    "Range",
    "check_numbers",
]


@dataclass(frozen=True)
class Range:
    """The values that a number may have: ``text`` describes them, ``holds`` tests a value."""

    text: str
    holds: Callable[[float], bool]


ANY = Range("any finite number", lambda value: True)
AT_LEAST_ONE = Range("at least 1", lambda value: value >= 1)
AT_LEAST_TWO = Range("at least 2", lambda value: value >= 2)
BELOW_ONE = Range("at least 0 and below 1", lambda value: 0 <= value < 1)
FRACTION = Range("above 0 and at most 1", lambda value: 0 < value <= 1)
NOT_NEGATIVE = Range("at least 0", lambda value: value >= 0)
POSITIVE = Range("above 0", lambda value: value > 0)
SHARE = Range("from 0 to 1", lambda value: 0 <= value <= 1)
OWN_CHECK = Range("what its own check allows", lambda value: True)
"""For fields with their own check, which runs before any work and gives a better message."""

_LARGEST = 2**63


def check_numbers(config: object, *, by_option: bool = False) -> None:
    """Raises ConfigError, naming the flag or the field, for a number out of range, also in nested configurations.

    No number may be NaN, infinite or, if its field declares no range, negative. No integer may be above 2^63 - 1. No
    tuple of numbers may be empty. The values must be plain Python values. ``by_option``: fields without a flag have the
    names that a file of options has for them (``head.c``), and not that of their class.
    """
    for entry, value, path in _numbers(config):
        limits, name = _range(entry), path if by_option and entry.flag is None else entry.shown
        if limits is not OWN_CHECK and not limits.holds(value):
            raise ConfigError(f"{name} {value}: must be {limits.text}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{name} {value}: must be a finite number")
        if isinstance(value, int) and value >= _LARGEST:
            raise ConfigError(f"{name} {value}: is too large")


def _range(entry: Field) -> Range:
    return next((mark for mark in entry.marks if isinstance(mark, Range)), NOT_NEGATIVE)


def _numbers(config: object, path: str = "") -> Iterator[tuple[Field, int | float, str]]:
    """Every number with its field and the names that lead to it; the code that reads a mapping checks those in it."""
    for entry in fields_of(type(config)):
        value: Any = getattr(config, entry.name)
        name = f"{path}{entry.name}"
        if value == () and get_args(entry.hint)[:1] in ((int,), (float,)) and _range(entry) is not OWN_CHECK:
            raise ConfigError(f"{entry.shown}: is empty; give one number or more")
        for item in value if isinstance(value, tuple) else (value,):
            if is_dataclass(item):
                yield from _numbers(item, f"{name}.")
            elif isinstance(item, int | float) and not isinstance(item, bool):
                yield entry, item, name

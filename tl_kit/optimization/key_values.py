"""Options given by name, as text (``key=value``) or as values: typed, checked, and never ignored."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tl_kit.errors import ConfigError, nearest
from tl_kit.number_ranges import ANY, Range

__all__ = [
    "Option",
    "check_options",
    "parse_pairs",
    "require_known",
]


@dataclass(frozen=True)
class Option:
    """One option: its default, its type (``tuple``: of floats, of ``length`` where that is fixed) and its limits."""

    default: object
    kind: type[object]
    length: int | None = None
    optional: bool = False
    limits: Range = ANY
    choices: tuple[str, ...] = ()

    def describe(self) -> str:
        """The values allowed, in words."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        words = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}.get(self.kind)
        if words is None:
            words = f"{self.length} numbers" if self.length else "numbers"
            words += " separated by commas"
        if self.limits is not ANY:
            words += f", {self.limits.text}"
        return words + (", or none" if self.optional else "")


def _hint(name: str, known: Iterable[str]) -> str:
    """``", did you mean 'x'?"`` for the closest known name, or an empty string when there is nothing to offer."""
    found = nearest(name, known, cutoff=0.0)
    return "" if found is None else f", did you mean {found!r}?"


def require_known(what: str, name: str, known: Iterable[str]) -> None:
    """Raise :class:`ConfigError` with the nearest known name unless ``name`` is known."""
    names = tuple(known)
    if name not in names:
        raise ConfigError(f"unknown {what} {name!r}{_hint(name, names)}")


def parse_pairs(owner: str, pairs: Sequence[str], options: Mapping[str, Option]) -> dict[str, object]:
    """Read ``["key=value", ...]``; the result holds the given keys only, in their types.

    ``owner`` names whose options these are in errors (``"optimizer 'adam'"``). Raises :class:`ConfigError` for an
    unknown key (naming the nearest one), a key given twice, or a value that the option cannot have.
    """
    values: dict[str, object] = {}
    for pair in pairs:
        key, separator, text = (part.strip() for part in pair.partition("="))
        if not separator or not key or not text:
            raise ConfigError(f"{owner}: {pair!r} is not of the form key=value")
        _require_option(owner, key, options)
        if key in values:
            raise ConfigError(f"{owner}: option {key!r} is given twice")
        values[key] = _from_text(owner, key, text, options[key])
    return check_options(owner, values, options)


def check_options(owner: str, values: Mapping[str, object], options: Mapping[str, Option]) -> dict[str, object]:
    """The same values in their exact types (whole numbers become floats, lists tuples), or :class:`ConfigError`."""
    checked = {}
    for key, value in values.items():
        _require_option(owner, key, options)
        checked[key] = _checked(owner, key, value, options[key])
    return checked


def _require_option(owner: str, key: str, options: Mapping[str, Option]) -> None:
    if key in options:
        return
    if not options:
        raise ConfigError(f"{owner} has no options, so {key!r} cannot be set")
    raise ConfigError(f"{owner} has no option {key!r}{_hint(key, options)} It has: {', '.join(sorted(options))}")


def _from_text(owner: str, key: str, text: str, option: Option) -> object:
    lowered = text.lower()
    if option.optional and lowered == "none":
        return None
    try:
        if option.kind is bool:
            return {"true": True, "false": False}[lowered]
        if option.kind is int:
            return int(text)
        if option.kind is float:
            return float(text)
        if option.kind is tuple:
            return tuple(float(part) for part in text.strip("()[]").split(","))
    except (KeyError, ValueError):
        raise _wrong(owner, key, text, option) from None
    return text


def _checked(owner: str, key: str, value: object, option: Option) -> object:
    if value is None and option.optional:
        return None
    if option.kind is tuple and isinstance(value, (tuple, list)) and len(value) == (option.length or len(value)):
        return tuple(_number(owner, key, part, option) for part in value)
    if option.kind is float:
        return _number(owner, key, value, option)
    if option.kind is int and isinstance(value, int) and not isinstance(value, bool) and option.limits.holds(value):
        return value
    if option.kind is bool and isinstance(value, bool):
        return value
    if option.kind is str and isinstance(value, str) and (not option.choices or value in option.choices):
        return value
    raise _wrong(owner, key, value, option)


def _number(owner: str, key: str, value: object, option: Option) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise _wrong(owner, key, value, option)
    if not math.isfinite(value) or not option.limits.holds(value):
        raise _wrong(owner, key, value, option)
    return float(value)


def _wrong(owner: str, key: str, value: object, option: Option) -> ConfigError:
    return ConfigError(f"{owner}: option {key!r} cannot be {value!r}; it is {option.describe()}")

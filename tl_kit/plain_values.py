"""Plain Python values: converts values of NumPy, torch and similar types by the type hints, before any work."""

from __future__ import annotations

import functools
import inspect
import numbers
import os
import types
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from tl_kit.errors import ConfigError
from tl_kit.flags import fields_of
from tl_kit.number_ranges import check_numbers

__all__ = ["plain", "plain_value", "takes_plain_values"]

T = TypeVar("T")
P = ParamSpec("P")
R = TypeVar("R")

_NONE = type(None)
_WORDS = {int: "a whole number", float: "a number", bool: "True or False", str: "a text", Path: "a path", _NONE: "None"}


class _OtherTypeError(Exception):
    """A value has a type that its hint does not allow; the text names the allowed types."""


def takes_plain_values(function: Callable[P, R]) -> Callable[P, R]:
    """A decorator that converts arguments to plain values, and checks the numbers in configurations.

    Raises ConfigError, naming the argument or the field, for a value that its type hint does not allow, and for a
    number of a configuration that is out of range. Arguments of other kinds (a Reporter) are passed on as they are.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def called(*args: P.args, **options: P.kwargs) -> R:
        bound, hints = signature.bind(*args, **options), _hints(function)
        for name, value in bound.arguments.items():
            found = _plain(hints[name], value, f"{function.__name__}({name})", f"--{name.replace('_', '-')}")
            if is_dataclass(found):
                check_numbers(found)
            bound.arguments[name] = found
        return function(*bound.args, **bound.kwargs)

    called.__dict__["takes_plain_values"] = True
    return called


def plain(config: T) -> T:
    """The dataclass with plain values in all fields, also in nested dataclasses.

    Numbers of NumPy and torch become Python numbers, texts for paths become paths, lists become tuples. Raises
    ConfigError, naming the field, for an impossible value: a text for a number, 2.5 epochs, a boolean for a number.
    """
    kind: Any = type(config)
    values = {
        entry.name: _plain(entry.hint, getattr(config, entry.name), f"{kind.__name__}.{entry.name}", entry.shown)
        for entry in fields_of(kind)
    }
    found: T = kind(**values)
    return found


def plain_value(hint: Any, value: object, where: str) -> Any:
    """One value as its type hint has it. Raises ConfigError, which begins with ``where``, for an impossible one.

    The error speaks of names and values where the hint is a configuration: whoever gives options by name writes those.
    """
    return _plain(hint, value, where, where, configs="names and values")


@functools.cache
def _hints(owner: Any) -> dict[str, Any]:
    return get_type_hints(owner)


def _plain(hint: Any, value: object, where: str, flag: str, *, configs: str = "") -> Any:
    try:
        return _as(hint, value, where)
    except _OtherTypeError:
        if get_origin(hint) is Literal and isinstance(value, str):
            raise ConfigError(f"{flag} {value}: known are {_described(hint)}") from None
        raise ConfigError(f"{where} {_shown(value)}: must be {_described(hint, configs)}") from None


def _shown(value: object) -> str:
    text = " ".join(repr(_scalar(value)).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def _described(hint: Any, configs: str = "") -> str:
    """The type in words; ``configs`` is the word for configurations, or empty for the names of their classes."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return ", or ".join(dict.fromkeys(_described(each, configs) for each in arguments))
    if origin is Literal:
        return ", ".join(map(str, arguments))
    if origin is tuple:
        one = _described(arguments[0])
        return f"a tuple, each {one}" if arguments[1:] == (...,) else f"{len(arguments)} values, each {one}"
    if origin is not None and _is_mapping(origin):
        return "a mapping from names to values"
    if configs and is_dataclass(hint):
        return configs
    return _WORDS.get(hint, f"a {getattr(hint, '__name__', hint)}")


def _as(hint: Any, value: Any, where: str) -> Any:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _one_of(get_args(hint), _at_home(value) if Path in get_args(hint) else value, where)
    if origin is Literal:
        found = str(value) if isinstance(value, str) else value
        return _if(isinstance(found, str) and found in get_args(hint), found)
    if origin is tuple:
        return _tuple(get_args(hint), value, where)
    if origin is not None and _is_mapping(origin):
        return _mapping(value, where)
    if isinstance(hint, type) and is_dataclass(hint):
        return _if(isinstance(value, hint), value) and plain(value)
    convert = _CONVERSIONS.get(hint)
    return value if convert is None else convert(_scalar(value))  # None: a type that is passed on unchanged


def _one_of(choices: tuple[Any, ...], value: Any, where: str) -> Any:
    """Convert to the type among ``choices`` that the value has, or else to the first that fits."""
    exact = [choice for choice in choices if choice is type(value)]
    for choice in (*exact, *(choice for choice in choices if choice not in exact)):
        try:
            return _as(choice, value, where)
        except _OtherTypeError:
            continue
    raise _OtherTypeError


def _tuple(kinds: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if isinstance(value, str | bytes | Mapping | os.PathLike):
        raise _OtherTypeError
    if isinstance(value, Sequence):
        items = list(value)
    elif getattr(value, "ndim", None) == 1:  # of numpy or torch
        items = list(value.tolist())
    else:
        raise _OtherTypeError
    if kinds[1:] == (...,):
        kinds = (kinds[0],) * len(items)
    if len(kinds) != len(items):
        raise _OtherTypeError
    return tuple(_as(kind, item, where) for kind, item in zip(kinds, items, strict=True))


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise _OtherTypeError
    return {str(key): _as_given(item, where) for key, item in value.items()}


def _as_given(value: Any, where: str) -> Any:
    """A plain value of a mapping, otherwise unchanged; the code that reads it knows its type."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(value)
    if isinstance(value, Mapping):
        return _mapping(value, where)
    value = _scalar(value)
    if getattr(value, "ndim", 0) == 1:
        value = value.tolist()
    if isinstance(value, list | tuple):
        return tuple(_as_given(item, where) for item in value)
    return str(value) if isinstance(value, str) else value


def _scalar(value: Any) -> Any:
    """The Python value of a NumPy number, or of an array or tensor without dimensions."""
    if getattr(value, "ndim", None) == 0 and callable(getattr(value, "item", None)):
        value = value.item()
    extended = isinstance(value, numbers.Real) and not isinstance(value, int | float)  # numpy's longdouble, fractions
    return float(value) if extended else value


def _number(value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _OtherTypeError
    try:
        float(value)
    except OverflowError:
        raise _OtherTypeError from None
    return value


def _whole(value: Any) -> int:
    return int(_if(isinstance(value, int) and not isinstance(value, bool), value))


def _path(value: Any) -> Path:
    """A path; none is empty, which would be the current folder."""
    text = _at_home(_text(value))
    return Path(_if(text != "", text))


def _at_home(value: Any) -> Any:
    """A path that begins with ``~`` in the user's home folder, as a shell writes it; everything else as it is."""
    text = str(value) if isinstance(value, str | Path) else ""
    if text != "~" and not text.startswith(("~/", f"~{os.sep}")):
        return value
    with suppress(RuntimeError):  # there is no home folder
        return type(value)(f"{Path.home()}{text[1:]}")
    return value


def _text(value: Any) -> str:
    """A text, which may name a file: a NUL is in no name, and would be an error without a name where it is opened."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    return str(_if(isinstance(value, str) and "\0" not in value, value))


def _if(sound: bool, value: T) -> T:
    if not sound:
        raise _OtherTypeError
    return value


def _is_mapping(origin: Any) -> bool:
    return isinstance(origin, type) and issubclass(origin, Mapping)


_CONVERSIONS: Mapping[Any, Callable[[Any], Any]] = {
    int: _whole,
    float: _number,
    bool: lambda value: _if(isinstance(value, bool), value),
    str: _text,
    Path: _path,
    _NONE: lambda value: _if(value is None, value),
}

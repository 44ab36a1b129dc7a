"""A run's configuration as JSON in ``tlkit.json``, and its conversion back with all types restored."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

__all__ = ["from_json", "to_json"]

T = TypeVar("T")

# Fields of earlier versions that have no effect any more.
_RETIRED = {"RuntimeConfig": frozenset({"bf16_from"}), "LoopConfig": frozenset({"keeps_statistics"})}


def to_json(value: Any) -> Any:
    """A dataclass as plain JSON values: paths are text, tuples are lists."""
    if is_dataclass(value) and not isinstance(value, type):
        return {entry.name: to_json(getattr(value, entry.name)) for entry in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def from_json(kind: type[T], content: object) -> T:
    """The dataclass ``kind`` from the output of :func:`to_json`; missing fields get their defaults.

    Raises ValueError, naming the field, for a field that ``kind`` does not have and for a value of another type.
    """
    if not isinstance(content, dict):
        raise ValueError(f"{kind.__name__} is not an object")
    hints = get_type_hints(kind)
    retired = _RETIRED.get(kind.__name__, frozenset())
    if unknown := sorted(content.keys() - hints.keys() - retired):
        raise ValueError(f"{kind.__name__} has no {unknown[0]!r}")
    kept = {name: item for name, item in content.items() if name in hints}
    return kind(**{name: _value(hints[name], item, name) for name, item in kept.items()})


def _value(hint: Any, item: Any, name: str) -> Any:
    """``item`` converted to the first type allowed by ``hint`` that fits."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        for choice in arguments:
            try:
                return _value(choice, item, name)
            except ValueError:
                continue
        raise ValueError(f"{name}: {item!r} is not what it can be")
    if origin is Literal and item in arguments and isinstance(item, str):
        return item
    if origin is tuple and isinstance(item, list):
        return _tuple(arguments, item, name)
    if origin is not None and isinstance(item, dict) and issubclass(origin, Mapping):
        return {key: _as_given(entry) for key, entry in item.items()}
    if isinstance(hint, type) and is_dataclass(hint) and isinstance(item, dict):
        return from_json(hint, item)
    if hint is Path and isinstance(item, str):
        return Path(item)
    if _is(hint, item):
        return item
    raise ValueError(f"{name}: {item!r} is not what it can be")


def _tuple(arguments: tuple[Any, ...], items: list[Any], name: str) -> tuple[Any, ...]:
    if arguments[1:] == (...,):
        return tuple(_value(arguments[0], item, name) for item in items)
    if len(items) != len(arguments):
        raise ValueError(f"{name}: {items!r} is not what it can be")
    return tuple(_value(kind, item, name) for kind, item in zip(arguments, items, strict=True))


def _as_given(value: Any) -> Any:
    """The options of an optimizer or a schedule; lists in JSON become tuples again."""
    return tuple(_as_given(item) for item in value) if isinstance(value, list) else value


def _is(hint: Any, item: object) -> bool:
    if hint is float:
        return isinstance(item, int | float) and not isinstance(item, bool)
    if hint is int:
        return isinstance(item, int) and not isinstance(item, bool)
    return hint in (bool, str, type(None)) and isinstance(item, hint)

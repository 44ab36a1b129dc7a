"""Command-line flags of configurations: what stands on a field beside its type and its default."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any, get_args, get_origin, get_type_hints

__all__ = ["NO_FLAGS", "Field", "Flag", "fields_of"]

NO_FLAGS = object()
"""On a field that holds a configuration: the command takes none of its flags."""


@dataclass(frozen=True, kw_only=True)
class Flag:
    """A field's option on the command line: ``Annotated[int, Flag(help="Images a training step.")]``.

    ``name``: by default that of the field (``batch_size``: ``--batch-size``); a name without dashes is a positional
    argument. ``metavar``: a word for the value in the help text, by default its type. ``parse`` makes the value from
    text where the type alone does not say how, and raises ValueError that says what the text must be.
    ``show_default``: False where the help text says more about it.
    """

    help: str
    name: str = ""
    metavar: str | None = None
    parse: Callable[[str], object] | None = None
    show_default: bool = True


@dataclass(frozen=True, kw_only=True)
class Field:
    """A field of a configuration: its type, its annotations apart from that, its default (or dataclasses.MISSING).

    ``shown`` is its name for people: that of its flag, or ``LoopConfig.epochs``. ``nested`` is the configuration whose
    flags stand in its place.
    """

    name: str
    hint: Any
    default: Any
    flag: Flag | None
    marks: tuple[object, ...]
    shown: str
    nested: type[Any] | None


def fields_of(kind: type[Any]) -> tuple[Field, ...]:
    """The fields of a dataclass, in order."""
    owner: Any = kind  # hashable, which mypy does not know of type[Any]
    return _fields(owner)


@functools.cache
def _fields(kind: Any) -> tuple[Field, ...]:
    hints = get_type_hints(kind, include_extras=True)
    return tuple(_field(kind, entry.name, hints[entry.name], entry.default) for entry in fields(kind))


def _field(kind: type[Any], name: str, hint: Any, default: Any) -> Field:
    marks: tuple[object, ...] = ()
    if get_origin(hint) is Annotated:
        hint, *found = get_args(hint)
        marks = tuple(found)
    flag = next((mark for mark in marks if isinstance(mark, Flag)), None)
    shown = f"{kind.__name__}.{name}"
    if flag is not None:
        shown = flag.name.partition("/")[0] or f"--{name.replace('_', '-')}"
    held = next((choice for choice in (hint, *get_args(hint)) if is_dataclass(choice)), None)
    nested = held if isinstance(held, type) and get_origin(hint) is not tuple and NO_FLAGS not in marks else None
    return Field(
        name=name,
        hint=hint,
        default=default,
        flag=flag,
        marks=marks,
        shown=shown,
        nested=None if flag is not None else nested,
    )

"""Command-line flags of configurations: what stands on a field beside its type and its default."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any, Literal, TypeAlias, get_args, get_origin, get_type_hints

__all__ = ["NO_FLAGS", "Field", "Flag", "OnlyFlags", "Panel", "fields_of"]

Panel: TypeAlias = Literal[
    "Data",
    "Search",
    "What trains",
    "Optimisation",
    "Regularisation",
    "Combination",
    "Prediction",
    "Run",
    "Output",
]
"""The sections of a long help page, in order."""


@dataclass(frozen=True)
class OnlyFlags:
    """On a field that holds a configuration: the command takes only the flags of these fields of it."""

    names: tuple[str, ...] = ()


NO_FLAGS = OnlyFlags()
"""On a field that holds a configuration: the command takes none of its flags."""


@dataclass(frozen=True, kw_only=True)
class Flag:
    """A field's option on the command line: ``Annotated[int, Flag(help="Images a training step.")]``.

    ``name``: by default that of the field (``batch_size``: ``--batch-size``); a name without dashes is a positional
    argument. ``metavar``: a word for the value in the help text, by default its type. ``parse`` makes the value from
    text where the type alone does not say how, and raises ValueError that says what the text must be.
    ``show_default``: False where the help text says more about it. ``panel``: the section of a long help page in which
    it stands; such a page shows first what is ``common``. ``complete``: what a shell offers, apart from choices of the
    type: texts, or "models" or "checkpoints".
    """

    help: str
    panel: Panel
    name: str = ""
    metavar: str | None = None
    parse: Callable[[str], object] | None = None
    show_default: bool = True
    common: bool = False
    complete: tuple[str, ...] | Literal["models", "checkpoints"] = ()


@dataclass(frozen=True, kw_only=True)
class Field:
    """A field of a configuration: its type, its annotations apart from that, its default (or dataclasses.MISSING).

    ``shown`` is its name for people: that of its flag, or ``LoopConfig.epochs``. ``nested`` is the configuration whose
    flags stand in its place: those of the fields in ``only``, or of all (None).
    """

    name: str
    hint: Any
    default: Any
    flag: Flag | None
    marks: tuple[object, ...]
    shown: str
    nested: type[Any] | None
    only: tuple[str, ...] | None = None

    def inner(self) -> tuple[Field, ...]:
        """The fields of the nested configuration whose flags the command takes; empty without one."""
        found = () if self.nested is None else fields_of(self.nested)
        return found if self.only is None else tuple(entry for entry in found if entry.name in self.only)


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
        both = flag.name.startswith("--")  # --name/--no-name; OWNER/NAME is one argument
        shown = (flag.name.partition("/")[0] if both else flag.name) or f"--{name.replace('_', '-')}"
    held = next((choice for choice in (hint, *get_args(hint)) if is_dataclass(choice)), None)
    only = next((mark.names for mark in marks if isinstance(mark, OnlyFlags)), None)
    nested = held if isinstance(held, type) and get_origin(hint) is not tuple and only != () else None
    return Field(
        name=name,
        hint=hint,
        default=default,
        flag=flag,
        marks=marks,
        shown=shown,
        nested=None if flag is not None else nested,
        only=only,
    )

"""Named options: a configuration's fields by the names of fields or flags, as a mapping or a YAML file gives them."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, is_dataclass, replace
from typing import Any, TypeAlias, TypeVar, get_args, get_origin

from tl_kit.errors import ConfigError, nearest
from tl_kit.flags import Field, fields_of
from tl_kit.number_ranges import check_numbers
from tl_kit.plain_values import plain_value

__all__ = ["Changes", "configured", "flag_name", "held_by", "many_of", "option_names", "read_options", "with_options"]

T = TypeVar("T")
Changes: TypeAlias = Mapping[tuple[str, ...], Any]
"""Values by the path to a field: ``("regularization", "l2")`` -> 0.1."""


def with_options(config: T, options: Mapping[str, Any], *, where: str) -> T:
    """The configuration with some options changed, all values and ranges checked.

    Raises ConfigError, which begins with ``where`` and names the option.
    """
    changes = read_options([type(config)], options, where=where)
    try:
        found = configured(type(config), changes, base=config)
        check_numbers(found, by_option=True)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    return found


def read_options(
    kinds: Sequence[type[Any]], options: Mapping[str, Any], *, where: str, command: str = ""
) -> dict[tuple[str, ...], Any]:
    """The values of named options, converted to their fields' types, by the path to the field.

    A name is that of a field, or of a flag of one of the ``kinds`` or of a configuration inside it, with hyphens or
    underscores. A field that holds a configuration takes that, or a mapping of its own fields; where a flag has its
    name (``runtime``), any other value is the flag's. Raises ConfigError, which begins with ``where`` and names the
    option, for a name that is unknown (to the ``command``), one that is given twice, and a value of another type.
    """
    of_command = f" of {command}" if command else ""
    names = {name: paths for kind in kinds for name, paths in option_names(kind).items()}
    found: dict[tuple[str, ...], Any] = {}
    for name, value in options.items():
        paths = names.get(str(name).replace("-", "_"))
        if paths is None:
            raise ConfigError(f"{where}: {name}: no such option{of_command}{_meant(str(name), names)}")
        whole = isinstance(value, Mapping) or is_dataclass(value)
        path = next((each for each in paths if (held_by(each[-1]) is not None) is whole), paths[0])
        for each, converted in _read(path, value, f"{where}: {name}"):
            place = tuple(entry.name for entry in each)
            if place in found:
                raise ConfigError(f"{where}: {name}: is given twice")
            found[place] = converted
    return found


def configured(kind: type[T], changes: Changes, *, base: T | None = None, usage: str = "") -> T:
    """The configuration ``base`` (None: the defaults) with these values.

    Raises ConfigError with the ``usage`` for a missing value that has no default.
    """
    own: dict[str, Any] = {}
    for entry in fields_of(kind):
        default = getattr(base, entry.name) if base is not None else entry.default
        if (entry.name,) in changes:
            own[entry.name] = default = changes[entry.name,]
        inner = {path[1:]: value for path, value in changes.items() if path[0] == entry.name and len(path) > 1}
        if inner:
            held = held_by(entry)
            assert held is not None
            within = default if isinstance(default, held) else None
            own[entry.name] = configured(held, inner, base=within, usage=usage)
        if base is None and default is MISSING and entry.name not in own and _is_needed(kind, entry.name):
            raise ConfigError(f"{entry.shown} is missing{f': {usage}' if usage else ''}")
    return kind(**own) if base is None else replace(base, **own)  # type: ignore[type-var]


def many_of(hint: Any) -> Any:
    """The type of each value of a field that takes several, or None."""
    kinds = [get_args(choice)[0] for choice in (hint, *get_args(hint)) if get_origin(choice) is tuple]
    return kinds[0] if kinds else None


def held_by(entry: Field) -> type[Any] | None:
    """The configuration that a field holds, or may hold; None for a field of another type."""
    found = next((choice for choice in (entry.hint, *get_args(entry.hint)) if is_dataclass(choice)), None)
    return found if isinstance(found, type) and get_origin(entry.hint) is not tuple else None


def option_names(kind: type[Any]) -> Mapping[str, tuple[tuple[Field, ...], ...]]:
    """The names of a configuration's options, with the fields that lead to each; two names stand for two fields."""
    owner: Any = kind  # hashable, which mypy does not know of type[Any]
    return _names(owner)


@functools.cache
def _names(kind: Any) -> Mapping[str, tuple[tuple[Field, ...], ...]]:
    found: dict[str, tuple[tuple[Field, ...], ...]] = {}
    for entry in fields_of(kind):
        found[entry.name] = ((entry,), *found.get(entry.name, ()))
        for name, path in _flagged(entry):
            if path not in found.get(name, ()):
                found[name] = (*found.get(name, ()), path)
    return found


def _flagged(entry: Field) -> Iterator[tuple[str, tuple[Field, ...]]]:
    """The flags of a field, or of the configuration in it: under the flag's name, and under the field's."""
    if entry.flag is not None:
        yield flag_name(entry), (entry,)
        yield entry.name, (entry,)
    for inner in entry.inner():
        for name, path in _flagged(inner):
            yield name, (entry, *path)


def flag_name(entry: Field) -> str:
    """The name of a field with a flag: that of the flag, with underscores, and of a positional argument its own."""
    return entry.shown.removeprefix("--").replace("-", "_") if entry.shown.startswith("--") else entry.name


def _read(path: tuple[Field, ...], value: Any, where: str) -> Iterator[tuple[tuple[Field, ...], Any]]:
    entry = path[-1]
    held = held_by(entry)
    if held is not None and isinstance(value, Mapping):
        names = {inner.name: inner for inner in fields_of(held)}
        for name, item in value.items():
            inner = names.get(str(name).replace("-", "_"))
            if inner is None:
                raise ConfigError(f"{where}: {name}: no such option{_meant(str(name), names)}")
            yield from _read((*path, inner), item, f"{where}: {name}")
        return
    if entry.flag is not None and entry.flag.parse is not None and isinstance(value, str):
        try:
            yield path, entry.flag.parse(value)
        except ValueError as error:
            raise ConfigError(f"{where} {value}: {error}") from None
        return
    if held is not None and held is entry.hint and not is_dataclass(value):
        such = next(inner for inner in fields_of(held) if isinstance(inner.default, bool | int | float | str))
        raise ConfigError(f"{where} {value}: must hold names and values, such as {such.name}: {such.default}")
    if isinstance(value, str) and many_of(entry.hint) is not None:
        value = (value,)
    yield path, plain_value(entry.hint, value, where)


def _meant(name: str, names: Mapping[str, object]) -> str:
    close = nearest(name.replace("-", "_"), names)
    return "" if close is None else f"; did you mean {close}?"


def _is_needed(kind: Any, name: str) -> bool:
    return bool(kind.__dataclass_fields__[name].default_factory is MISSING)

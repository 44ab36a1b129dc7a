"""Commands from configurations: every field with a flag is an option, and the typed values become the configuration."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, replace
from types import GenericAlias
from typing import Annotated, Any, TypeVar, get_args, get_origin

import typer

from tl_kit.cli.console import Console
from tl_kit.cli.session import session
from tl_kit.config import DebugConfig
from tl_kit.errors import ConfigError
from tl_kit.flags import Field, Flag, fields_of
from tl_kit.number_ranges import check_numbers

__all__ = ["Given", "command"]

T = TypeVar("T")


class Given:
    """The options of one call of a command; ``usage`` is shown if a required one is missing."""

    def __init__(self, typed: Mapping[str, Any], usage: str) -> None:
        self._typed = typed
        self._usage = usage

    def read(self, kind: type[T]) -> T:
        """The configuration: its defaults, replaced by the values that were typed.

        Raises ConfigError, naming the flag, for an invalid value, a number out of range, and a missing required option.
        """
        config: T = kind(**self._values(fields_of(kind)))
        check_numbers(config)
        return config

    def refuse_others(self, option: str, reason: str, *allowed: str) -> None:
        """Raises ConfigError with the ``reason`` if options other than these, --json and --debug were typed."""
        for name in self._typed:
            if name not in (option, *allowed, "--json", "--debug"):
                raise ConfigError(f"{name}: {reason}")

    def typed(self, option: str) -> Any:
        """The text or value of one option as it was typed; None if it was not."""
        return self._typed.get(option)

    def _values(self, entries: Iterable[Field]) -> dict[str, Any]:
        found = {}
        for entry in entries:
            if entry.nested is not None:
                if changes := self._values(entry.inner()):
                    default = entry.default
                    found[entry.name] = entry.nested(**changes) if default is None else replace(default, **changes)
            elif entry.flag is not None and entry.shown in self._typed:
                found[entry.name] = _value(entry, entry.flag, self._typed[entry.shown])
            elif entry.flag is not None and entry.default is MISSING:
                raise ConfigError(f"{entry.shown} is missing: {self._usage}")
        return found


def command(*kinds: type[Any], usage: str = "") -> Callable[[Callable[[Given, Console], None]], Callable[..., None]]:
    """Make a function the typer command whose options are the flags of these configurations, in order, and --debug.

    The function runs in a session, and reads its configurations from the first argument. With ``usage``, no option is
    required by the parser; the text is shown if the function needs a missing one.
    """

    def decorate(function: Callable[[Given, Console], None]) -> Callable[..., None]:
        entries = [entry for kind in (*kinds, DebugConfig) for entry in fields_of(kind)]
        options = {entry.shown: _parameter(entry, optional=bool(usage)) for entry in _flagged(entries)}
        context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)

        def run(*, context: typer.Context, **values: Any) -> None:
            typed = {
                shown: values[parameter.name]
                for shown, parameter in options.items()
                if getattr(context.get_parameter_source(parameter.name), "name", "") == "COMMANDLINE"
            }
            given = Given(typed, usage)
            with session(debug=given.read(DebugConfig).debug) as console:
                function(given, console)

        run.__name__, run.__doc__ = function.__name__, function.__doc__
        parameters = [context, *options.values()]
        run.__dict__["__signature__"] = inspect.Signature(parameters)  # typer reads the signature and the annotations
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def _flagged(entries: Iterable[Field]) -> Iterator[Field]:
    """The fields with a flag, in order; a field that holds a configuration is replaced by the fields in it."""
    for entry in entries:
        if entry.nested is not None:
            yield from _flagged(entry.inner())
        elif entry.flag is not None:
            yield entry


def _parameter(entry: Field, *, optional: bool) -> inspect.Parameter:
    """The field as a parameter for typer."""
    flag, needed, many = entry.flag, entry.default is MISSING, _many(entry.hint)
    assert flag is not None
    hint: Any = str if flag.parse is not None else GenericAlias(list, (many,)) if many else entry.hint
    default = None if needed or entry.default in (None, ()) else entry.default
    if needed and not optional:
        default = inspect.Parameter.empty
    elif default is None:
        hint = hint | None
    elif flag.parse is not None:
        default = f"{default:g}" if isinstance(default, float) else str(default)
    shown = flag.show_default and not needed
    info = (
        typer.Option(flag.name or entry.shown, metavar=flag.metavar, help=flag.help, show_default=shown)
        if entry.shown.startswith("-")
        else typer.Argument(metavar=flag.name, help=flag.help, show_default=shown)
    )
    name = entry.shown.lstrip("-").replace("-", "_") if entry.shown.startswith("-") else entry.name
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=Annotated[hint, info])


def _many(hint: Any) -> Any:
    """The type of each value of a flag that may be repeated, or None."""
    kinds = [get_args(choice)[0] for choice in (hint, *get_args(hint)) if get_origin(choice) is tuple]
    return kinds[0] if kinds else None


def _value(entry: Field, flag: Flag, typed: Any) -> Any:
    if flag.parse is not None:
        try:
            return flag.parse(typed)
        except ValueError as error:
            raise ConfigError(f"{entry.shown} {typed}: {error}") from None
    return tuple(typed) if _many(entry.hint) is not None else typed

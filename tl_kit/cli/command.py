"""Commands from configurations: every field with a flag is an option, and the typed values become the configuration."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING
from pathlib import Path
from types import GenericAlias
from typing import Annotated, Any, TypeVar, get_args

import typer

from tl_kit.cli.console import Console
from tl_kit.cli.session import session
from tl_kit.cli.shell.completion import completion
from tl_kit.cli.shell.help_pages import HELP_ALL, add_pages, is_long, show_all
from tl_kit.config import DebugConfig, OptionsFileConfig
from tl_kit.errors import ConfigError
from tl_kit.flags import Field, Flag, fields_of
from tl_kit.named_options import Changes, configured, many_of, read_options
from tl_kit.number_ranges import check_numbers
from tl_kit.options_file import read_options_file

__all__ = ["Given", "command"]

T = TypeVar("T")


class Given:
    """The options of one call of a command: typed, or in a file (``in_file``, by the path to the field)."""

    def __init__(
        self, typed: Mapping[str, Any], usage: str, *, file: Path | None = None, in_file: Changes | None = None
    ) -> None:
        self._typed = typed
        self._usage = usage
        self._file = file
        self._in_file = in_file or {}

    def read(self, kind: type[T]) -> T:
        """The configuration: its defaults, replaced by the values in the file, and these by the values that were typed.

        Raises ConfigError, naming the flag, for an invalid value, a number out of range, and a missing required option.
        """
        typed = dict(self._changes(fields_of(kind)))
        own = {entry.name for entry in fields_of(kind)}
        filed = {
            path: value
            for path, value in self._in_file.items()
            if path[0] in own and not any(path[: len(given)] == given for given in typed)
        }
        config = configured(kind, {**filed, **typed}, usage=self._usage)
        try:
            check_numbers(config, by_option=bool(filed))
        except ConfigError as error:
            was_typed = str(error).partition(" ")[0].rstrip(":") in self._typed
            raise ConfigError(f"{self._file}: {error}") if filed and not was_typed else error from None
        return config

    def refuse_others(self, option: str, reason: str, *allowed: str) -> None:
        """Raises ConfigError with the ``reason`` if options other than these, --json and --debug were given."""
        for name in self._typed:
            if name not in (option, *allowed, "--json", "--debug", "--config"):
                raise ConfigError(f"{name}: {reason}")
        for *_, name in self._in_file:
            if name not in (option.lstrip("-"), "json"):
                raise ConfigError(f"{self._file}: {name}: {reason}")

    def typed(self, option: str) -> Any:
        """The text or value of one option as it was typed; None if it was not."""
        return self._typed.get(option)

    def _changes(self, entries: Iterable[Field]) -> Iterator[tuple[tuple[str, ...], Any]]:
        """The typed values, by the path to the field."""
        for entry in entries:
            for path, value in self._changes(entry.inner()):
                yield (entry.name, *path), value
            if entry.flag is not None and entry.shown in self._typed:
                yield (entry.name,), _value(entry, entry.flag, self._typed[entry.shown])


def command(*kinds: type[Any], usage: str = "") -> Callable[[Callable[[Given, Console], None]], Callable[..., None]]:
    """Make a function the typer command whose options are the flags of these configurations, --config and --debug.

    The function runs in a session, and reads its configurations from the first argument. The parser requires no option,
    since any may stand in the file; ``usage`` is shown if the function needs a missing one.
    """

    def decorate(function: Callable[[Given, Console], None]) -> Callable[..., None]:
        entries = [entry for kind in (*kinds, OptionsFileConfig, DebugConfig) for entry in fields_of(kind)]
        flagged = {entry.shown: entry for entry in _flagged(entries)}
        options = {shown: _parameter(entry) for shown, entry in flagged.items()}
        context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)

        pages = [_help_all()] if is_long(len(options)) else []

        def run(*, context: typer.Context, help_all: bool = False, **values: Any) -> None:
            typed = {
                shown: values[parameter.name]
                for shown, parameter in options.items()
                if getattr(context.get_parameter_source(parameter.name), "name", "") == "COMMANDLINE"
            }
            own = Given(typed, usage)
            with session(debug=own.read(DebugConfig).debug) as console:
                file = own.read(OptionsFileConfig).config
                in_file = {} if file is None else _read_file(file, kinds, function.__name__)
                function(Given(typed, usage, file=file, in_file=in_file), console)

        run.__name__, run.__doc__ = function.__name__, function.__doc__
        if pages:
            common = (name for name, entry in flagged.items() if entry.flag is not None and entry.flag.common)
            add_pages(run, [*(options[name].name for name in common), *(page.name for page in pages)])
        run.__dict__["paths"] = frozenset(name for name, entry in flagged.items() if Path in _types(entry.hint))
        parameters = [context, *options.values(), *pages]
        run.__dict__["__signature__"] = inspect.Signature(parameters)  # typer reads the signature and the annotations
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def _read_file(file: Path, kinds: Sequence[type[Any]], name: str) -> Changes:
    """The options in a file of the command with this name, by the path to the field."""
    return read_options(kinds, read_options_file(file), where=str(file), command=f"tlkit {name}")


def _help_all() -> inspect.Parameter:
    """The option that shows a long help page in full."""
    info = typer.Option(HELP_ALL, callback=show_all, is_eager=True, help="Show every option and exit.")
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter("help_all", kind, default=False, annotation=Annotated[bool, info])


def _types(hint: Any) -> tuple[Any, ...]:
    """The types in a union or a list (``Path | None``), or the type itself."""
    return get_args(hint) or (hint,)


def _flagged(entries: Iterable[Field]) -> Iterator[Field]:
    """The fields with a flag, in order; a field that holds a configuration is replaced by the fields in it."""
    for entry in entries:
        if entry.nested is not None:
            yield from _flagged(entry.inner())
        elif entry.flag is not None:
            yield entry


def _parameter(entry: Field) -> inspect.Parameter:
    """The field as a parameter for typer."""
    flag, needed, many = entry.flag, entry.default is MISSING, many_of(entry.hint)
    assert flag is not None
    hint: Any = str if flag.parse is not None else GenericAlias(list, (many,)) if many else entry.hint
    default = None if needed or entry.default in (None, ()) else entry.default
    if default is None:
        hint = hint | None
    elif flag.parse is not None:
        default = f"{default:g}" if isinstance(default, float) else str(default)
    shown, offered = flag.show_default and not needed, completion(flag.complete)
    info = (
        typer.Option(
            flag.name or entry.shown,
            metavar=flag.metavar,
            help=flag.help,
            show_default=shown,
            rich_help_panel=flag.panel,
            autocompletion=offered,
        )
        if entry.shown.startswith("-")
        else typer.Argument(metavar=flag.name, help=flag.help, show_default=shown, autocompletion=offered)
    )
    name = entry.shown.lstrip("-").replace("-", "_") if entry.shown.startswith("-") else entry.name
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=Annotated[hint, info])


def _value(entry: Field, flag: Flag, typed: Any) -> Any:
    if flag.parse is not None:
        try:
            return flag.parse(typed)
        except ValueError as error:
            raise ConfigError(f"{entry.shown} {typed}: {error}") from None
    return tuple(typed) if many_of(entry.hint) is not None else typed

"""Help pages in sections: a long one shows the common options first, and all of them with ``--help-all``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any, get_args

import typer
from typer.core import TyperCommand

from tl_kit.cli.session import session
from tl_kit.flags import Panel

__all__ = ["HELP_ALL", "PanelCommand", "add_pages", "is_long"]

HELP_ALL = "--help-all"
_SHORT = 17  # options that a page shows in one section, and all of them
_ALL = "tl_kit.help_all"
_COLUMN = 30  # of the options' names, at most: click's own


def is_long(options: int) -> bool:
    """True if a command has so many options that its first page shows the common ones only."""
    return options > _SHORT


def add_pages(function: Callable[..., None], common: Iterable[str]) -> None:
    """Note on a command's function, for :class:`PanelCommand`, the names of the parameters on the first page."""
    function.__dict__["common"] = frozenset(common)


def show_all(context: typer.Context, value: bool) -> None:
    """Show the help page with every option, and end the command."""
    if not value:
        return
    context.meta[_ALL] = True
    with session(command=False) as console:
        console.raw(context.get_help() + "\n")
    raise typer.Exit()


class PanelCommand(TyperCommand):
    """A command whose options stand in sections, where they are many. A path on its command line is not empty."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments. Raises typer's error for an option whose path is empty, as of an unset variable.

        Python would take it for the current folder.
        """
        paths = getattr(self.callback, "paths", ())
        for name, value in pairwise([*args, "."]):
            given, _, text = name.partition("=") if "=" in name else (name, "", value)
            if given in paths and not text:
                raise typer.BadParameter(f"{given}: the path is empty; . is the current folder", ctx)
        return super().parse_args(ctx, args)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments and the options, with their help, a section after the other."""
        common = getattr(self.callback, "common", None)
        rows: dict[str, list[tuple[str, str]]] = {name: [] for name in ("Arguments", "Options", *get_args(Panel))}
        left_out = 0
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is None:
                continue
            if common is not None and param.name not in common and param.name != "help" and not ctx.meta.get(_ALL):
                left_out += 1
            elif param.param_type_name == "argument":  # without its type, which is of Python
                rows["Arguments"].append((record[0].partition(" ")[0], record[1]))
            else:
                panel = "Options" if common is None else getattr(param, "rich_help_panel", None) or "Run"
                rows[panel].append(record)
        width = min(_COLUMN, max(len(name) for section in rows.values() for name, _ in section))
        for title, section in rows.items():
            if section:
                with formatter.section(title):
                    formatter.write_dl([(name.ljust(width), text) for name, text in section], col_max=_COLUMN)
        if left_out:
            formatter.write_paragraph()
            formatter.write_text(f"{left_out} more options: {ctx.command_path} {HELP_ALL}")

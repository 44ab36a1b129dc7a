"""``tlkit``: the application with all commands, and the program's entry point."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
from typer.main import get_command

from tl_kit._version import __version__
from tl_kit.cli.commands.cache import cache
from tl_kit.cli.commands.demo import demo
from tl_kit.cli.commands.doctor import doctor
from tl_kit.cli.commands.ensemble import ensemble
from tl_kit.cli.commands.evaluate import evaluate
from tl_kit.cli.commands.export import export
from tl_kit.cli.commands.finetune import finetune
from tl_kit.cli.commands.fit import fit
from tl_kit.cli.commands.models import models
from tl_kit.cli.commands.plan import plan
from tl_kit.cli.commands.predict import predict
from tl_kit.cli.commands.push import push
from tl_kit.cli.commands.report import report
from tl_kit.cli.commands.serve import serve
from tl_kit.cli.console import Console
from tl_kit.cli.session import INTERRUPTED, USER_ERROR, session
from tl_kit.cli.shell.help_pages import PanelCommand
from tl_kit.cli.startup import from_shell

__all__ = ["app", "main"]

COMMANDS = (fit, finetune, plan, ensemble, evaluate, predict, report, serve, export, push, models, doctor, cache, demo)

_OF_A_LIBRARY = "Value error, "  # pydantic's, before typer's own words

app = typer.Typer(
    name="tlkit",
    help="Transfer learning and ensembling of image classifiers on timm's model zoo.",
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for command in COMMANDS:
    app.command(cls=PanelCommand)(command)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    with session(command=False) as console:
        if version:
            console.line(f"tlkit {__version__}")
        elif context.invoked_subcommand is None:
            console.raw(context.get_help() + "\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line: run ``tlkit`` with ``arguments`` (None: ``sys.argv``), and end the process with its exit code."""
    if arguments is None:
        from_shell()
    sys.exit(_run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    try:
        code = _parser(app)(arguments, prog_name="tlkit", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        Console().error("interrupted")
        return INTERRUPTED
    except Exception as error:
        if not hasattr(error, "format_message"):  # the parser's errors have this method
            raise
        context = getattr(error, "ctx", None)
        command = context.command_path if context else _command(sys.argv[1:] if arguments is None else arguments)
        text = error.format_message().replace(_OF_A_LIBRARY, "")
        Console().error(f"error: {text} ({command} -h shows how)")
        return USER_ERROR
    return code if isinstance(code, int) else 0


@functools.cache
def _parser(application: typer.Typer) -> Callable[..., Any]:
    """The application with all its flags. To make it takes longer than many a command, so it is made once a process."""
    return get_command(application)


def _command(arguments: Sequence[str]) -> str:
    """The command that was typed: the parser does not say it of an option without its value."""
    name = arguments[0] if arguments else ""
    return f"tlkit {name}" if name in {each.__name__ for each in COMMANDS} else "tlkit"

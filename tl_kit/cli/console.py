"""The console: the only module that prints; results go to stdout, messages, progress and errors to stderr."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, TextIO

from rich.console import Console as RichConsole
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from tl_kit.cli.cells import EPOCH_FIGURES, figures, width_of, wrap
from tl_kit.cli.tables import MARKS, layout
from tl_kit.config import TableConfig
from tl_kit.display import visible
from tl_kit.reporting import UNKNOWN

__all__ = ["Console", "OutputClosedError"]

_UNITS = {  # of stages that count no images
    **dict.fromkeys(("export", "range test"), "steps"),
    **dict.fromkeys(("digest", "download"), "MB"),
    "load": "data sets",
    "read table": "rows",
    "unpack": "files",
}


class OutputClosedError(Exception):
    """The reader of standard output has closed it (``tlkit predict ... | head``)."""


class Console:
    """The console: a Reporter, and the output of results.

    While it is entered, output of libraries goes to stderr, so stdout contains results only. Progress is animated only
    if stderr is a terminal; otherwise a stage or an epoch is one line, written when it ends. Text is shown without
    markup, and control characters are made visible. On a terminal, lines break between words, and tables fit its width.
    In a file or a pipe, each line and each row stays on one line, so that grep finds whole paths.
    """

    def __init__(self) -> None:
        self._stdout, self._stderr = sys.stdout, sys.stderr
        self._err = RichConsole(
            file=self._stderr, markup=False, emoji=False, highlight=False, width=_fixed_width(self._stderr)
        )
        self._animated = self._stderr.isatty() and not self._err.is_dumb_terminal
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._stage = _Stage()
        self._in_epoch = False
        self._restore = contextlib.ExitStack()

    def __enter__(self) -> Console:
        for stream in (self._stdout, self._stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")  # a terminal in Latin-1 must not cause an error
        self._restore.enter_context(contextlib.redirect_stdout(self._stderr))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_stage(finished=kind is None)
        self._restore.close()

    # The methods of a Reporter.

    def message(self, text: str) -> None:
        """One line for the user."""
        if UNKNOWN < self._stage.total <= self._stage.done:
            self._end_stage()
        self._say(Text(visible(text)))

    def start(self, stage: str, total: int) -> None:
        """A stage begins. After one named ``epoch ...``, stages belong to this epoch until its row is reported."""
        self._end_stage()
        self._in_epoch = self._in_epoch or stage.startswith("epoch ")
        self._stage = _Stage(stage, total)
        if self._animated:
            self._progress = _progress(self._err, _unit(stage))
            known = None if total == UNKNOWN else total
            self._task = self._progress.add_task(visible(stage), total=known, figures="")
            self._progress.start()

    def advance(self, steps: int = 1, **shown: float) -> None:
        """Some images of the stage are finished."""
        self._stage.advance(steps)
        if self._progress is not None:
            extra: dict[str, Any] = {"figures": figures(shown)} if shown else {}
            self._progress.update(self._task, advance=steps, **extra)

    def epoch(self, row: Mapping[str, float]) -> None:
        """An epoch is over."""
        self._end_stage()
        self._in_epoch = False
        self.message(figures({name: row[name] for name in EPOCH_FIGURES if name in row}))

    # Results and errors.

    def notes(self, lines: Iterable[str], *, json: bool) -> None:
        """Explain a table's marks in lines below it; with JSON output they go to stderr."""
        for text in lines:
            self.message(text) if json else self.line(text)

    def line(self, text: str = "") -> None:
        """One line of the result, with sentences and figures."""
        width = _width(self._stdout)
        text = visible(text)
        self._write("\n".join([text] if width is None else wrap(text, width, long_words=False)) + "\n")

    def entry(self, name: str, value: str) -> None:
        """One line of the result with a path or a command, which is never broken, so that it can be copied."""
        name, value, width = visible(name), visible(value), _width(self._stdout)
        fits = width is None or width_of(f"{name}: {value}") <= width
        self._write(f"{name}: {value}\n" if fits else f"{name}:\n{value}\n")

    def table(self, header: Sequence[str], rows: Iterable[Sequence[str]], *, align: str) -> None:
        """A table of the result; ``align`` has a letter for each column, as in ``tables.layout``."""
        shown = [[visible(cell) for cell in row] for row in rows]
        lines = layout(
            [visible(name) for name in header], shown, align, _width(self._stdout), plain=_plain(self._stdout)
        )
        self._write("".join(f"{line}\n" for line in lines))

    def json(self, content: Mapping[str, Any]) -> None:
        """One JSON object on one line, in ASCII: any program can read it, whatever a path or class name contains."""
        self._write(json.dumps(content, allow_nan=False) + "\n")

    def raw(self, text: str) -> None:
        """Text for programs, unchanged; on a terminal, control characters are made visible."""
        if self._stdout.isatty():
            text = "\n".join(map(visible, text.split("\n")))
        self._write(text)

    def stream(self, text: str) -> None:
        """:meth:`raw` for a part of a result, in the middle of a stage; on a terminal, it takes the bar's place."""
        if self._stdout.isatty():
            text = "\n".join(map(visible, text.split("\n")))
            if self._progress is not None:
                self._progress.stop()
                self._progress = None
        self._put(text)

    def done(self) -> None:
        """End the stage that is running."""
        self._end_stage()

    def error(self, text: str) -> None:
        """One line with the reason why the command ends."""
        self._end_stage(finished=False)
        line = Text(visible(text))
        label, colon, _ = text.partition(":")
        line.stylize("bold red", 0, len(label) if colon else 0)
        self._say(line)

    def traceback(self, error: BaseException) -> None:
        """Print an error's traceback, for ``--debug``."""
        self._end_stage(finished=False)
        for line in "".join(traceback.format_exception(error)).splitlines():
            self._say(Text(visible(line)))

    def _end_stage(self, *, finished: bool = True) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
        stage, self._stage = self._stage, _Stage()
        if stage.name and finished and not self._in_epoch:
            unit = _unit(stage.name) if stage.done != 1 else _unit(stage.name).removesuffix("s")
            self.message(f"{stage.name}: {stage.done:,} {unit} in {stage.seconds():.1f} s")

    def _say(self, text: Text) -> None:
        if self._animated:
            self._err.print(_wrapped(text, self._err.width), soft_wrap=True)
            return
        try:
            self._stderr.write(text.plain + "\n")
            self._stderr.flush()
        except BrokenPipeError:  # nothing reads the messages any more; the work continues
            _discard(self._stderr)

    def _write(self, text: str) -> None:
        self._end_stage()
        self._put(text)

    def _put(self, text: str) -> None:
        try:
            self._stdout.write(text)
            self._stdout.flush()
        except BrokenPipeError as error:
            _discard(self._stdout)
            raise OutputClosedError from error
        except OSError:
            _discard(self._stdout)
            raise


class _Stage:
    """The stage that is running: its name and its progress."""

    def __init__(self, name: str = "", total: int = 0) -> None:
        self.name, self.total, self.done = name, total, 0
        self._started = time.perf_counter()
        self._ended: float | None = None

    def advance(self, steps: int) -> None:
        """Count; the clock stops with the last of a known total, and what follows without a word is not its time."""
        self.done += steps
        if UNKNOWN < self.total <= self.done:
            self._ended = time.perf_counter()

    def seconds(self) -> float:
        return (self._ended or time.perf_counter()) - self._started


def _unit(stage: str) -> str:
    """The word for what a stage counts."""
    return _UNITS.get(stage, "images")


def _progress(console: RichConsole, unit: str) -> Progress:
    """Progress in one line: the share done, then bar, time and figures as far as they fit the terminal."""
    name, done = TextColumn("{task.description}", markup=False), MofNCompleteColumn()
    figures = TextColumn("{task.fields[figures]}", markup=False)
    columns: tuple[ProgressColumn, ...] = (name, done)
    for least, more in (
        (TableConfig.progress_figures, (name, done, figures)),
        (TableConfig.progress_bar, (name, BarColumn(10), done, figures)),
        (TableConfig.progress_time, (name, BarColumn(25), done, TextColumn(unit), TimeElapsedColumn(), figures)),
    ):
        columns = more if console.width >= least else columns
    return Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False)


def _width(stream: TextIO) -> int | None:
    """The terminal's width in cells, from COLUMNS or else from the terminal; None if the stream is not a terminal."""
    if not stream.isatty():
        return None
    try:
        own = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        own = 0
    return _columns_of_environment() or own or TableConfig.unknown


def _fixed_width(stream: TextIO) -> int | None:
    """The width in COLUMNS (the terminal's if it is not a number); None if unset, since the window may be resized."""
    return _width(stream) if "COLUMNS" in os.environ else None


def _columns_of_environment() -> int | None:
    """COLUMNS, if it is a valid number of columns."""
    text = os.environ.get("COLUMNS", "").strip()
    return (int(text) or None) if text.isascii() and text.isdigit() and len(text) < 7 else None


def _wrapped(text: Text, width: int) -> Text:
    """The text with line breaks between words; commands and paths are not broken."""
    lines = wrap(text.plain, width, long_words=False)
    if len(lines) == 1:
        return text
    broken = Text("\n".join(lines))
    for span in text.spans:
        broken.stylize(span.style, span.start, min(span.end, len(lines[0])))
    return broken


def _plain(stream: TextIO) -> bool:
    """True if the stream's encoding lacks the characters with which tables are drawn."""
    try:
        MARKS.encode(stream.encoding or "utf-8")
    except (UnicodeError, LookupError):
        return True
    return False


def _discard(stream: TextIO) -> None:
    """Discard later writes, including the flush at the interpreter's exit."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)

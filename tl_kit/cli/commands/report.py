"""``tlkit report``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from tl_kit.cli.command import Given, command
from tl_kit.cli.console import Console
from tl_kit.cli.session import answering_signals
from tl_kit.config import DecodeConfig, JsonConfig, ReportConfig, RuntimeConfig

__all__ = ["before_report", "report", "report_at_end"]


@command(ReportConfig, JsonConfig, usage="tlkit report RESULT [--data PATH] [--out FILE.html]")
def report(given: Given, console: Console) -> None:
    """Write one HTML page: scores, mistakes, and where a model looks."""
    asked = given.read(ReportConfig)
    with answering_signals():
        import tl_kit

        made = tl_kit.report(
            asked.result,
            data=asked.data,
            out=asked.out,
            images=asked.images,
            limits=asked.limits,
            decode=asked.decode,
            runtime=asked.runtime,
            reporter=console,
        )
    if given.read(JsonConfig).json:
        console.json({**asdict(made), "file": str(made.file)})
        return
    console.line(made.sentence)
    console.entry("report", str(made.file))


@contextmanager
def before_report(wanted: bool) -> Iterator[None]:
    """Keep within the block what is scored, if a report is ``wanted`` at the end of it."""
    if not wanted:
        yield
        return
    import tl_kit

    with tl_kit.keeping_outputs():
        yield


def report_at_end(
    folder: Path | str,
    console: Console,
    *,
    json: bool,
    data: Path | None = None,
    decode: DecodeConfig = DecodeConfig(),
    runtime: RuntimeConfig = RuntimeConfig(),
) -> None:
    """Write the report of a finished result, for ``--report``; with ``json``, say nothing on standard output.

    ``decode`` and ``runtime`` are those of the work that ends with it.
    """
    import tl_kit

    made = tl_kit.report(folder, data=data, decode=decode, runtime=runtime, reporter=console)
    if not json:
        console.entry("report", str(made.file))

"""``tlkit report``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from tl_kit.cli.command import Given, command
from tl_kit.cli.console import Console
from tl_kit.cli.session import answering_signals
from tl_kit.config import JsonConfig, ReportConfig

__all__ = ["report", "report_at_end"]


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


def report_at_end(folder: Path | str, console: Console, *, json: bool, data: Path | None = None) -> None:
    """Write the report of a finished result, for ``--report``; with ``json``, say nothing on standard output."""
    import tl_kit

    made = tl_kit.report(folder, data=data, reporter=console)
    if not json:
        console.entry("report", str(made.file))

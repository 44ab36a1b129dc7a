"""``tlkit doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from tl_kit.cli.command import Given, command
from tl_kit.cli.console import Console
from tl_kit.cli.session import PROBLEMS_FOUND
from tl_kit.config import ExamineConfig, JsonConfig
from tl_kit.file_kinds import address_of

if TYPE_CHECKING:
    from tl_kit import Report

__all__ = ["doctor"]

EXAMPLES = 3  # paths shown with a finding; --json has them all


@command(ExamineConfig, JsonConfig, usage="tlkit doctor --data PATH")
def doctor(given: Given, console: Console) -> None:
    """Say what is wrong with a folder of images. Exit code 1 if training would stop."""
    asked = given.read(ExamineConfig)
    from tl_kit import doctor as examine
    from tl_kit import report_dict

    report = examine(asked.data, split=asked.split, decode=asked.decode, reporter=console)
    if given.read(JsonConfig).json:
        console.json(report_dict(report))
    else:
        _show(report, console)
    if report.blocks:
        raise typer.Exit(PROBLEMS_FOUND)


def _show(report: Report, console: Console) -> None:
    if report.manifest is not None:
        counts = report.manifest.counts()
        rows = [[name, *(f"{table[name]:,}" for table in counts.values())] for name in report.manifest.classes]
        rows.append(["all", *(f"{sum(table.values()):,}" for table in counts.values())])
        console.table(["class", *counts], rows, align="l" + "r" * len(counts))
        console.line()
    rows = []
    for finding in report.findings:
        shown = ", ".join(str(path) for path in finding.paths[:EXAMPLES])
        more = f" and {len(finding.paths) - EXAMPLES} more" if len(finding.paths) > EXAMPLES else ""
        rows.append([finding.severity, finding.code, finding.message, shown + more])
    if rows:
        console.table(["severity", "finding", "what", "where"], rows, align="nnww")
        console.line()
        _show_remedies(report, console)
    from tl_kit import runtime_report

    for line in runtime_report():
        console.line(line)
    console.line()
    name = address_of(report.root) or report.root
    console.line(f"{name}: {'cannot be trained on as it is' if report.blocks else 'can be trained on'}")


def _show_remedies(report: Report, console: Console) -> None:
    """Show the remedies, one for each kind of finding."""
    remedies = {finding.code: finding for finding in report.findings if finding.remedy}
    rows = []
    for code, finding in remedies.items():
        anyway = f"; or finetune --allow {code}" if finding.severity == "error" and code != "unusable" else ""
        rows.append([code, finding.remedy + anyway])
    if rows:
        console.table(["finding", "what to do"], rows, align="nw")
        console.line()

"""``tlkit fit``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tl_kit.cli.cells import figure
from tl_kit.cli.command import Given, command
from tl_kit.cli.commands.report import before_report, report_at_end
from tl_kit.cli.console import Console
from tl_kit.cli.session import answering_signals
from tl_kit.cli.startup import seconds_before
from tl_kit.config import FitConfig, FitResumeConfig, JsonConfig, ReportAtEndConfig
from tl_kit.display import step_number

if TYPE_CHECKING:
    from tl_kit import FitResult

__all__ = ["fit"]

_USAGE = "tlkit fit --data PATH [--time 10m], or tlkit fit --resume FIT [--time 10m]"


@command(FitConfig, FitResumeConfig, ReportAtEndConfig, JsonConfig, usage=_USAGE)
def fit(given: Given, console: Console) -> None:
    """Find the best classifier for your images in a given time. Chooses networks, trains them and combines them."""
    folder, json = given.read(FitResumeConfig).resume, given.read(JsonConfig).json
    at_end, how = given.read(ReportAtEndConfig).report, dict[str, Any]()
    with answering_signals(), before_report(at_end):
        if folder is not None:
            given.refuse_others(
                "--resume", "--resume goes on with the fit's own options; leave it out", "--time", "--report"
            )
            time = given.typed("--time")
            import tl_kit

            result = tl_kit.resume_fit(folder, time=time, spent=seconds_before(), reporter=console)
        else:
            config = given.read(FitConfig)
            how = {"decode": config.decode, "runtime": config.runtime}
            import tl_kit

            result = tl_kit.fit(config, spent=seconds_before(), reporter=console)
        if json:
            console.json(result.to_dict())
        else:
            _show(result, console)
        if at_end:
            console.message("the report is made after the time of the fit")
            report_at_end(result.folder, console, json=json, **how)


def _show(result: FitResult, console: Console) -> None:
    rows = []
    for row in result.leaderboard:
        number, mark = step_number(row.name), "*" if row.chosen else ""
        right = "" if row.accuracy is None else figure("accuracy", row.accuracy) + _error(row.accuracy_error)
        step = "crop" if row.rung == "view" else row.rung
        rows.append(
            [
                f"{number}{mark}",
                row.network,
                step,
                f"{row.seconds:.0f}",
                right or row.status,
                "" if row.nll is None else f"{row.nll:.3f}",
                f"of {step_number(row.of)}" if row.of else "" if row.added is None else f"{-row.added:+.3f}",
                "" if row.latency is None else f"{row.latency:.0f}",
                "" if row.parameters is None else f"{row.parameters / 1e6:.1f}",
            ]
        )
    console.table(["", "network", "step", "s", "val* accuracy", "nll", "gain", "ms", "M"], rows, align="lnlrrrrrr")
    console.line(
        "*: in the result. val*: validation chose epochs and networks by it. gain: the change of the ensemble's NLL by "
        "this step. ms: one image alone. M: million parameters."
    )
    if any(row.of for row in result.leaderboard):
        console.line("refit of N: step N again, on validation images too; the scores are those of step N.")
    console.line()
    for line in result.story:
        console.line(line)
    for offer in result.offers:
        console.entry("one fast network of it", offer)
    console.entry("picture", result.picture)
    console.entry("result", result.folder)


def _error(value: float | None) -> str:
    """The standard error of an accuracy in points, as a text; empty for a single image, which has none."""
    return "" if value is None else f" ± {100 * value:.1f}"

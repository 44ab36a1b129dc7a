"""``tlkit demo``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tl_kit.cli.cells import figure
from tl_kit.cli.command import Given, command
from tl_kit.cli.console import Console
from tl_kit.config import DemoConfig

if TYPE_CHECKING:
    from tl_kit import DemoResult

__all__ = ["demo"]


@command(DemoConfig)
def demo(given: Given, console: Console) -> None:
    """Show the whole story offline, on scikit-learn's digits. Fine-tunes three models and combines them."""
    from tl_kit import demo as run

    _show(run(given.read(DemoConfig), reporter=console), console)


def _show(result: DemoResult, console: Console) -> None:
    rows = [
        [
            row.name,
            row.policy or "",
            figure("accuracy", row.before),
            figure("accuracy", row.after),
            f"{row.seconds:.0f} s" if row.seconds is not None else "",
        ]
        for row in result.rows
    ]
    console.table(["test accuracy", "policy", "before", "after", "time"], rows, align="llrrr")
    lo, hi = (100 * bound for bound in result.gain["ci95"])
    gain = 100 * result.gain["accuracy"]
    console.line()
    console.line(
        f"ensemble, over its best member by validation: {gain:+.1f} points (95 % interval {lo:+.1f} to {hi:+.1f})"
    )
    console.line(f"{result.seconds:.0f} s in all; everything is in {result.folder}")
    console.entry("report", result.report)
    console.entry("next", f"tlkit predict {result.rows[-1].checkpoint} {result.data}/7")

"""``tlkit cache``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tl_kit.cli import options
from tl_kit.cli.session import session

__all__ = ["cache"]


def cache(
    directory: Annotated[Path | None, typer.Option("--cache-dir", help="Default: the user's cache folder.")] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Drop everything.")] = False,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Show what is kept of frozen networks' outputs, or clear it. Later runs compute again what is gone."""
    with session(debug=debug) as console:
        from tl_kit import cache_report, clear_cache

        if clear:
            freed = clear_cache(directory)
            if json:
                console.json({"freed_bytes": freed})
            else:
                console.line(f"{freed / 1e6:.1f} MB freed")
            return
        report = cache_report(directory)
        if json:
            console.json(report.to_dict())
            return
        rows = [[entry.key[:12], f"{entry.rows:,}", f"{entry.size / 1e6:.1f}", entry.used] for entry in report.entries]
        if rows:
            console.table(["trunk", "rows", "MB", "last used"], rows, align="lrrl")
            console.line()
        console.line(f"{report.size / 1e6:.1f} MB of at most {report.limit / 1e6:,.0f} in {report.directory}")

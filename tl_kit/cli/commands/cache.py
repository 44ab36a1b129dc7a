"""``tlkit cache``."""

from __future__ import annotations

from tl_kit.cli.command import Given, command
from tl_kit.cli.console import Console
from tl_kit.config import CacheReportConfig, JsonConfig

__all__ = ["cache"]


@command(CacheReportConfig, JsonConfig)
def cache(given: Given, console: Console) -> None:
    """Show the cached features and copies of data sets, or clear them.

    Later runs make both anew.
    """
    asked, json = given.read(CacheReportConfig), given.read(JsonConfig).json
    from tl_kit import cache_report, clear_cache

    if asked.clear:
        freed = clear_cache(asked.directory)
        if json:
            console.json({"freed_bytes": freed})
        else:
            console.line(f"{freed / 1e6:.1f} MB freed")
        return
    report = cache_report(asked.directory)
    if json:
        console.json(report.to_dict())
        return
    rows = [[entry.key[:12], f"{entry.rows:,}", f"{entry.size / 1e6:.1f}", entry.used] for entry in report.entries]
    if rows:
        console.table(["trunk", "rows", "MB", "last used"], rows, align="lrrl")
        console.line()
    if report.copies:
        held = [[each.of, f"{each.files:,}", f"{each.size / 1e6:.1f}", each.used] for each in report.copies]
        console.table(["local copy of", "files", "MB", "last used"], held, align="lrrl")
        console.line()
    console.line(f"{report.size / 1e6:.1f} MB of at most {report.limit / 1e6:,.0f} in {report.directory}")

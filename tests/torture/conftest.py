"""Prints the torture table when a session has made one."""

from __future__ import annotations

from typing import Any

from tests.torture.table import ROWS, table


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if ROWS:
        terminalreporter.section("torture")
        for line in table(ROWS):
            terminalreporter.write_line(line)

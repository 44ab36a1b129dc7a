"""The table of ``pytest -m torture``: fault, tries, survived, lost.

A torture test calls :func:`record` once it has counted, also where something was lost: the row is printed with all
others when the session ends (``conftest.py`` beside this file), and the test fails.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["ROWS", "TABLE_FILE", "Row", "record", "table"]

TABLE_FILE = "TLKIT_TORTURE_TABLE"
"""An environment variable: the file to which each row is appended as a line of JSON, where it is set."""


@dataclass(frozen=True)
class Row:
    """Of ``tries`` times that ``fault`` was brought about, nothing was lost in ``survived``."""

    fault: str
    tries: int
    survived: int

    @property
    def lost(self) -> int:
        return self.tries - self.survived


ROWS: list[Row] = []
"""This session's rows, in the order of their tests."""


def record(fault: str, *, tries: int, survived: int, lost: Sequence[object] = ()) -> None:
    """Note a row. Raises AssertionError where nothing was tried or anything was lost; ``lost`` says what it was."""
    row = Row(fault, tries, survived)
    ROWS.append(row)
    if os.environ.get(TABLE_FILE):
        with Path(os.environ[TABLE_FILE]).open("a", encoding="utf-8") as file:
            file.write(json.dumps({**asdict(row), "lost": row.lost}) + "\n")
    assert tries > 0, f"{fault}: nothing was tried"
    assert row.lost == 0, f"{fault}: {row.lost} of {tries} lost {[str(what) for what in lost[:20]]}"


def table(rows: Sequence[Row]) -> list[str]:
    """Lines of text; rows of the same fault are one."""
    merged: dict[str, Row] = {}
    for row in rows:
        before = merged.get(row.fault, Row(row.fault, 0, 0))
        merged[row.fault] = Row(row.fault, before.tries + row.tries, before.survived + row.survived)
    width = max((len(fault) for fault in merged), default=0)
    lines = [f"{'fault':<{width}}  {'tries':>6}  {'survived':>8}  {'lost':>5}"]
    lines += [f"{r.fault:<{width}}  {r.tries:>6,}  {r.survived:>8,}  {r.lost:>5,}" for r in merged.values()]
    return lines

"""The table itself: a row that lost anything fails its test, and is in the table all the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.torture import table as torture
from tests.torture.table import Row, record, table


@pytest.fixture(autouse=True)
def rows(monkeypatch: pytest.MonkeyPatch) -> list[Row]:
    """Not those of the session, to which nothing of this belongs."""
    mine: list[Row] = []
    monkeypatch.setattr(torture, "ROWS", mine)
    return mine


def test_what_is_lost_fails_and_is_noted(rows: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(torture.TABLE_FILE, str(tmp_path / "rows.jsonl"))
    record("kill", tries=30, survived=30)
    with pytest.raises(AssertionError, match=r"kill: 1 of 4 lost \['the second'\]"):
        record("kill", tries=4, survived=3, lost=["the second"])
    with pytest.raises(AssertionError, match="nothing was tried"):
        record("nothing", tries=0, survived=0)
    assert [row.lost for row in rows] == [0, 1, 0]
    lines = (tmp_path / "rows.jsonl").read_text().splitlines()
    assert [json.loads(line)["lost"] for line in lines] == [0, 1, 0]


def test_rows_of_one_fault_are_added_up() -> None:
    lines = table([Row("kill", 30, 30), Row("full disk", 1000, 999), Row("kill", 4, 4)])
    assert [line.split() for line in lines] == [
        ["fault", "tries", "survived", "lost"],
        ["kill", "34", "34", "0"],
        ["full", "disk", "1,000", "999", "1"],
    ]

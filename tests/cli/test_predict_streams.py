"""``tlkit predict`` in a pipeline: paths on standard input, rows as they come, files of rows, addresses."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Story
from tests.cli.helpers import Outcome, start, tlkit


def piped(monkeypatch: pytest.MonkeyPatch, content: bytes, *arguments: object) -> Outcome:
    """``tlkit`` with this on standard input."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    return tlkit(*arguments)


@pytest.fixture
def files(story: Story) -> list[Path]:
    return sorted(story.data.rglob("*.png"))


@pytest.mark.parametrize("form", ["table", "csv", "jsonl"])
def test_paths_on_standard_input(form: str, story: Story, files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    some = [*files, *files][:32]  # a whole batch
    expected = tlkit("predict", story.checkpoint, *some, "--format", form)
    lines = b"".join(os.fsencode(file) + b"\n" for file in some)
    assert piped(monkeypatch, lines, "predict", story.checkpoint, "-", "--format", form).out == expected.out
    if form == "jsonl":
        both = piped(monkeypatch, lines, "predict", story.checkpoint, files[4], "-", files[5], "--format", form)
        paths = [json.loads(line)["path"] for line in both.out.splitlines()]
        assert paths == [str(file) for file in (files[4], *some, files[5])]


def test_names_of_any_kind(story: Story, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = [tmp_path / os.fsdecode(name) for name in (b"a\nb.png", b"caf\xe9.png", b"[x]*.png", b" .png")]
    for path in odd:
        path.write_bytes(files[0].read_bytes())
    content = b"".join(os.fsencode(path) + b"\0" for path in (*odd, tmp_path / "missing.png"))
    done = piped(monkeypatch, content, "predict", story.checkpoint, "-", "--null", "--format", "jsonl")
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert (done.code, [row["path"] for row in rows]) == (1, [str(path) for path in (*odd, tmp_path / "missing.png")])
    assert [row["error"] for row in rows] == [None] * 4 + ["cannot be read: No such file or directory"]
    assert done.err.splitlines()[-1] == "1 of 5 images could not be predicted; their rows say why"


@pytest.mark.parametrize(
    ("arguments", "content", "message"),
    [
        (("-",), b"", "no images to predict: standard input names none"),
        (("-",), b"a\0b\0", "give --null"),
        (("-", "-"), b"", "-: is given twice"),
        (("a.png", "--null"), b"", "--null: is for paths on standard input"),
        (("a.png", "--resume"), b"", "--resume: goes on with a file; name it with --out"),
        (("a.png", "--format", "parquet"), b"", "name it with --out"),
        (("a.png", "--out", "a.csv", "--format", "table"), b"", "a file (--out) is csv, jsonl or parquet"),
        (("a.png", "--out", "a.txt"), b"", "--out a.txt: a file is csv, jsonl or parquet"),
        (("https://x.org/a.png",), b"", "https://x.org/a.png: an address: --urls fetches it"),
        (("a.png", "--allow-private"), b"", "--allow-private: is for addresses; give --urls too"),
        (("http://127.0.0.1/", "--urls", "--out", "no-such-folder/a.csv"), b"", "no-such-folder"),
    ],
)
def test_mistakes_are_a_line(
    arguments: tuple[str, ...], content: bytes, message: str, story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = piped(monkeypatch, content, "predict", story.checkpoint, *arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert len(done.err.splitlines()) == 1


def test_an_address_that_is_not_fetched_is_a_row(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    done = piped(
        monkeypatch, b"http://127.0.0.1:9/a\n", "predict", story.checkpoint, "-", "--urls", "--format", "jsonl"
    )
    assert done.code == 1
    assert "--allow-private allows it" in json.loads(done.out)["error"]


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_file_has_the_rows_that_are_shown(form: str, story: Story, files: list[Path], tmp_path: Path) -> None:
    shown = tlkit("predict", story.checkpoint, story.data, "--top", 2, "--format", form)
    done = tlkit("predict", story.checkpoint, story.data, "--top", 2, "--out", tmp_path / f"rows.{form}")
    assert (done.code, done.out) == (0, f"predictions: {tmp_path}/rows.{form}\n")
    assert (tmp_path / f"rows.{form}").read_text() == shown.out
    again = tlkit("predict", story.checkpoint, story.data, "--out", tmp_path / f"rows.{form}", "--resume")
    assert (again.code, again.err) == (
        2,
        f"error: --resume: {tmp_path}/rows.{form} is complete; remove it to predict again\n",
    )


def test_rows_come_while_paths_come_and_a_closed_pipe_ends_it(story: Story, files: list[Path]) -> None:
    """The first rows are there before standard input ends; nothing is said when nobody reads them any more."""
    process = start("predict", story.checkpoint, "-", "--format", "jsonl", stdin=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdin.write(f"{files[0]}\n{files[1]}\n")
    process.stdin.flush()
    assert [json.loads(process.stdout.readline())["path"] for _ in range(2)] == [str(files[0]), str(files[1])]
    process.stdin.write(f"{files[2]}\n")
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["path"] == str(files[2])
    process.stdout.close()
    process.stdin.write(f"{files[3]}\n")
    process.stdin.flush()
    assert process.wait(60) == 141
    assert "Traceback" not in (said := process.stderr.read())
    assert "error" not in said


def test_paths_that_are_typed(story: Story, files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = type("Terminal", (io.BytesIO,), {"isatty": lambda self: True})(os.fsencode(files[0]) + b"\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(terminal))
    done = tlkit("predict", story.checkpoint, "-", "--format", "csv", "--top", 1)
    assert done.out.splitlines()[1].startswith(f"{files[0]},")
    assert done.err.splitlines()[0] == "reading paths from the terminal, one a line; Ctrl-D ends them"

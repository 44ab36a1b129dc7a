"""What the console shows on a terminal and off it."""

from __future__ import annotations

import io
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tl_kit.cli.cells import figure
from tl_kit.cli.console import Console
from tl_kit.display import visible
from tl_kit.reporting import UNKNOWN


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def write_epoch(console: Console) -> None:
    with console:
        console.start("epoch 1/2", 64)
        console.advance(32, loss=0.5, data_wait=0.034)
        console.message("half [bold]way[/bold] \x1b[2J")
        console.advance(32, loss=0.4, data_wait=0.034)
        console.start("evaluate val", 8)
        console.advance(8)
        console.epoch({"epoch": 1.0, "loss": 0.45, "val_accuracy": 0.875, "lr": 1e-4})
        console.start("evaluate test", 8)
        console.advance(8)


def test_a_file_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    write_epoch(Console())
    lines = stream.getvalue().splitlines()
    assert lines[0] == r"half [bold]way[/bold] \x1b[2J"
    assert lines[1] == "epoch 1  loss 0.450  val accuracy 87.5 %  lr 1.0e-04"
    assert lines[2].startswith("evaluate test: 8 images in ")
    assert len(lines) == 3


@pytest.mark.parametrize(
    ("stage", "done", "text"),
    [
        ("predict", 1, "predict: 1 image in"),
        ("predict", 1200, "predict: 1,200 images in"),
        ("range test", 100, "range test: 100 steps in"),
        ("export", 1, "export: 1 step in"),
    ],
)
def test_a_stage_that_ended_says_what_it_counted(
    stage: str, done: int, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    with Console() as console:
        console.start(stage, done)
        console.advance(done)
    assert stream.getvalue().startswith(f"{text} ")


def test_silent_work_after_a_stage_is_not_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, clock = io.StringIO(), [0.0]
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr("tl_kit.cli.console.time.perf_counter", lambda: clock[0])
    with Console() as console:
        console.start("features val", 24)
        for seconds in (1.0, 3.0):
            clock[0] = seconds
            console.advance(12)
        clock[0] = 32.0
        console.start("scan", UNKNOWN)  # of no known total
        console.advance(5)
        clock[0] = 34.0
    assert stream.getvalue().splitlines() == ["features val: 24 images in 3.0 s", "scan: 5 images in 2.0 s"]


def test_a_terminal_gets_a_bar_with_images_loss_and_data_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with Console() as console:
        console.start("epoch 1/2", 64)
        console.advance(32, loss=0.5, data_wait=0.034)
        deadline = time.monotonic() + 10
        while "32/64" not in stream.getvalue() and time.monotonic() < deadline:
            time.sleep(0.05)  # the bar is drawn by a thread of its own
        console.message(r"half [bold]way[/bold] " + "\x1b[2J")
    shown = stream.getvalue()
    for part in ("epoch 1/2", "32/64", "loss 0.500", "data wait 3.4 %", r"half [bold]way[/bold] \x1b[2J"):
        assert part in shown
    assert "\x1b[2J" not in shown
    assert shown.index("\x1b[?25h") > shown.index("\x1b[?25l")  # the cursor is back


def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("TERM", "dumb")
    write_epoch(Console())
    assert "\x1b" not in stream.getvalue()


def test_a_rank_in_the_environment_silences_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setattr("sys.stderr", err)
    monkeypatch.setenv("RANK", "1")
    console = Console()
    write_epoch(console)
    console.json({"a": 1})
    console.error("error: this is said too")
    assert out.getvalue() == '{"a": 1}\n'
    assert len(err.getvalue().splitlines()) == 4


def test_a_table_in_a_pipe_is_not_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr("sys.stdout", out)
    path = "/very/long" * 60
    Console().table(["path", "share"], [[path, "1 %"], ["x", "100 %"]], align="lr")
    header, _, first, second = out.getvalue().splitlines()
    assert first.startswith(path)
    assert len(first) == len(second) == len(header)


def test_a_stream_without_our_characters_is_no_reason_to_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, encoding="latin-1"))
    with Console() as console:
        console.line("größe łódź")
        console.table(["a"], [["b"]], align="l")
    assert raw.getvalue().decode("latin-1").startswith("größe \\u0142\\xf3d\\u017a\n".replace("\\xf3", "ó"))


def test_json_is_ascii_whatever_is_in_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr("sys.stdout", out)
    Console().json({"path": "é\udcff\x1b"})
    assert out.getvalue() == '{"path": "\\u00e9\\udcff\\u001b"}\n'


def test_json_refuses_what_is_no_json() -> None:
    with pytest.raises(ValueError, match="JSON"):
        Console().json({"nll": float("nan")})


@given(st.text(st.characters()))
def test_visible_leaves_nothing_for_a_terminal_to_obey(text: str) -> None:
    shown = visible(text)
    kinds = {unicodedata.category(c) for c in shown if c not in "\u200c\u200d"}
    assert not kinds & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    plain = "".join(c for c in text if unicodedata.category(c)[0] in "LNPS")
    assert all(c in shown for c in plain)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("[red]größe[/red] 猫 👩‍🔬", "[red]größe[/red] 猫 👩‍🔬"),
        ("a\nb\tc\rd\0", r"a\nb\tc\rd\x00"),
        ("\x1b[31mred\x9b", r"\x1b[31mred\x9b"),
        ("jpg.\u202egnp", r"jpg.\u202egnp"),
        ("\udcff", r"\udcff"),
    ],
)
def test_visible(text: str, shown: str) -> None:
    assert visible(text) == shown


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("accuracy", 0.8714, "87.1 %"),
        ("val_accuracy", 1.0, "100.0 %"),
        ("nll", 0.41234, "0.412"),
        ("lr", 0.00012, "1.2e-04"),
        ("epoch", 3.0, "3"),
        ("images_per_second", 41.6, "42"),
    ],
)
def test_figure(name: str, value: float, shown: str) -> None:
    assert figure(name, value) == shown

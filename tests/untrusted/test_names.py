"""Class names and folders from others: shown, never obeyed, on a terminal and in pictures; exact in data."""

from __future__ import annotations

import csv
import io
import json
import sys
import warnings
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tests.cli.helpers import TINY, tlkit
from tests.combining.test_receipt import receipt_of
from tests.combining.toy import noisy
from tests.helpers import write_images
from tests.untrusted.conftest import write_checkpoint
from tl_kit.cli.console import Console
from tl_kit.display import drawable, visible
from tl_kit.reports.learning_curves import draw_curves
from tl_kit.reports.receipt_picture import draw_receipt

NAMES = (
    "[bold red]b[@click=x]c",
    "<script>alert(1)<|script>",
    "\x1b[2J\x1b]0;title\x07",
    "safe\u202egnp.exe\u2066",
    "line\nfeed\r\u2028",
    "$\\frac{1}{0}$ 100%_{",
    "\u200b\ufeffzero width",
    "=cmd|' -C calc'!A0",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("names") / "data"
    for number, name in enumerate(NAMES):
        colour = ("red", "green", "blue", "grey")[number % 4]
        write_images(root, (colour,), images=5, seed=number)
        (root / colour).rename(root / name)
    return root


def is_shown(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


def test_every_command_shows_them_and_obeys_none(data: Path, tmp_path: Path) -> None:
    runs = [tmp_path / f"{name}\x1b[31m" for name in ("a$x^{", "b")]
    for seed, out in enumerate(runs):
        options = ("--policy", "head", "--seed", seed, "--out", out)
        done = tlkit("finetune", "test_resnet", "--data", data, *TINY, *options)
        assert done.code == 0, done.err
        assert is_shown(done.out + done.err)
    commands: list[tuple[object, ...]] = [
        ("predict", runs[0], data),
        ("evaluate", runs[0], "--data", data),
        ("doctor", "--data", data),
        ("ensemble", *runs, "--out", tmp_path / "both"),
    ]
    for command in commands:
        done = tlkit(*command)
        assert is_shown(done.out + done.err), command
        if command[0] in ("predict", "evaluate"):
            assert visible(NAMES[2]) in done.out
    rows = list(csv.DictReader(io.StringIO(tlkit("predict", runs[0], data, "--format", "csv").out, newline="")))
    assert {row["label"] for row in rows} <= set(NAMES), "data for programs has the names themselves"
    lines = tlkit("predict", runs[0], data, "--format", "jsonl").out
    assert is_shown(lines)
    assert {json.loads(line)["label"] for line in lines.splitlines()} <= set(NAMES)


@pytest.mark.parametrize("terminal", [True, False])
def test_data_on_a_terminal_is_made_visible(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: terminal)
    monkeypatch.setattr(sys, "stdout", stream)
    text = "path,label\na.png,\x1b[2Jred\x0b\u2028\n"
    with Console() as console:
        console.raw(text)
    assert stream.getvalue() == ("path,label\na.png,\\x1b[2Jred\\x0b\\u2028\n" if terminal else text)


@pytest.mark.parametrize("name", [*NAMES, *map(visible, NAMES), "\\$", "$", "$$", "a\\$b$"])
def test_pictures_draw_them_without_a_word(name: str, tmp_path: Path) -> None:
    """matplotlib would take what stands between dollars for a formula, and fail at one that is none."""
    figure = Figure()
    figure.suptitle(drawable(name))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FigureCanvasAgg(figure).draw()


def test_a_runs_and_an_ensembles_picture_take_any_folder(tmp_path: Path) -> None:
    folder = tmp_path / "$\\frac{1}\x1b[31m\u202e"
    folder.mkdir()
    row = {"epoch": 1, "loss": 1.0, "lr": 0.1}
    (folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    assert draw_curves(folder).exists()
    draw_receipt(receipt_of([str(folder), "b$"], noisy(0, 40, members=2), None, samples=20), folder / "receipt.png")
    assert (folder / "receipt.png").exists()


def test_names_in_refusals_are_shown(tmp_path: Path, data: Path) -> None:
    write_checkpoint(tmp_path / "other\x1b[31m", classes=("a\x1b[2J", "b\u202e", "c"))
    done = tlkit("evaluate", tmp_path / "other\x1b[31m", "--data", data)
    assert done.code == 2
    assert is_shown(done.err)
    assert r"\x1b" in done.err

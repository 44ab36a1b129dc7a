"""Every command that prints a table, on terminals of every width, with names that are long, wide or hostile."""

from __future__ import annotations

import json
import re
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from tests.cli.helpers import tlkit
from tests.cli.terminals import NAMES, WIDTHS, Terminal, hostile_images, shown, unfit
from tl_kit.cli.cells import width_of
from tl_kit.cli.console import Console
from tl_kit.display import visible

FIGURE = re.compile(r"\d+\.\d+ %")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hostile class folders, and six members of one command."""
    top = tmp_path_factory.mktemp("narrow")
    data = hostile_images(top / "images")
    common = ("--data", data, "--weights", "none", "--img-size", 32, "--policy", "full", "--epochs", 1)
    done = tlkit("finetune", "test_resnet", *common, "--members", 6, "--out", top / "members")
    assert done.code == 0, done.err
    return top


@pytest.mark.parametrize("columns", WIDTHS)
def test_commands_that_train_nothing(columns: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, data = folder / "members" / "member-1", ("--data", folder / "images")
    commands: dict[str, tuple[object, ...]] = {
        "plan": ("plan", "test_resnet", *data, "--weights", "none", "--img-size", 32, "--policy", "full"),
        "evaluate": ("evaluate", one, *data),
        "doctor": ("doctor", *data),
        "models": ("models", "resnet18"),
        "cache": ("cache",),
    }
    for command, arguments in commands.items():
        lines = shown(monkeypatch, columns, *arguments)
        assert lines, command
        assert [bad for line in lines if (bad := unfit(line, columns))] == [], command


@pytest.mark.parametrize("columns", WIDTHS)
def test_predictions_name_their_images_and_classes(columns: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("predict", folder / "members" / "member-1", folder / "images" / NAMES[1], "--top", 3)
    text = "\n".join(shown(monkeypatch, columns, *arguments))
    whole = re.sub(r"\s", "", text)
    found = [json.loads(line) for line in tlkit(*arguments, "--format", "jsonl").out.splitlines()]
    for row in found:
        assert Path(row["path"]).name in whole
        assert text.count(f"{100 * row['probability']:.1f} %") > 0
    assert len(FIGURE.findall(text)) == 3 * len(found)
    assert visible(NAMES[2])[-4:] in text
    assert NAMES[0][-8:] in text


def test_six_members_are_told_apart(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(monkeypatch, 80, "ensemble", f"{folder}/members/member-*", "--out", tmp_path / "e")
    for number in range(1, 7):
        assert len([line for line in lines if re.match(rf"(\d  )?\S*member-{number}  .* %$", line)]) == 2
    assert [bad for line in lines if (bad := unfit(line, 80))] == []


def test_in_a_pipe_nothing_is_cut(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    done = tlkit("predict", folder / "members" / "member-1", folder / "images", "--top", 5)
    lines = done.out.splitlines()
    assert len(lines) == 32
    assert all(sum(visible(name) in line for name in NAMES) == 3 for line in lines[2:])
    assert all(str(folder / "images") in line for line in lines[2:])


@pytest.mark.parametrize("columns", ["0", "10", "", "wide", "-5", "1" * 30])
def test_columns_that_are_no_width(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = Terminal(), Terminal()
    with monkeypatch.context() as patch, redirect_stdout(out), redirect_stderr(err):  # pytest itself reads COLUMNS
        patch.setenv("COLUMNS", columns)
        patch.setenv("TERM", "xterm")
        with Console() as console:
            console.start("epoch 1/2", 64)
            console.advance(32, loss=0.5, data_wait=0.034)
            console.message("a message of some words")
            console.table(["class", "f1"], [["x" * 100, "12.5 %"]], align="lr")
            console.line("a line of words " * 10)
    assert "12.5 %" in out.getvalue()
    assert "message" in err.getvalue()
    if columns != "10":
        assert max(map(width_of, out.getvalue().splitlines())) <= 80


@pytest.mark.parametrize("columns", WIDTHS)
def test_progress_stays_on_its_line(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    err = Terminal()
    with redirect_stderr(err), Console() as console:
        console.start("features of all stages", 12_345)
        console.advance(2345, loss=1.372, data_wait=0.056)
        console.start("epoch 12/20", 12_345)
        console.advance(2345, loss=1.372, data_wait=0.056)
    frames = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", err.getvalue()))
    assert all(width_of(frame) <= columns for frame in frames)
    assert any("2345/12345" in frame for frame in frames)
    assert (columns < 60) != any("loss 1.372" in frame for frame in frames)


def test_messages_end_between_words_and_commands_stay_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm")
    out, err = Terminal(), Terminal()
    command = "tlkit ensemble '/a long folder/of mine with/spaces in it'/member-*"
    with redirect_stdout(out), redirect_stderr(err), Console() as console:
        console.message("the frozen part runs once on each of 3 augmented views of an image")
        console.line("accuracy 58.3 %  balanced accuracy 58.3 %  macro f1 58.3 %")
        console.entry("combine them", command)
        console.entry("checkpoint", "ckpts/one")
        console.error(f"error: {'x' * 50}: is not there")
    assert out.getvalue().splitlines() == [
        "accuracy 58.3 %",
        "balanced accuracy 58.3 %",
        "macro f1 58.3 %",
        "combine them:",
        command,
        "checkpoint: ckpts/one",
    ]
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", err.getvalue())
    assert plain.splitlines() == [
        "the frozen part runs once on each of 3",
        "augmented views of an image",
        "error:",
        f"{'x' * 50}:",
        "is not there",
    ]

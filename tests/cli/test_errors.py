"""How a command ends when something is wrong: one line, an exit code, and nothing on stdout."""

from __future__ import annotations

import errno
import json
import os
import signal
from pathlib import Path

import pytest

from tests.cli.conftest import Story
from tests.cli.helpers import MODEL, Outcome, start, tlkit
from tests.helpers import write_images
from tests.torture.processes import NO_FORKS, Command
from tl_kit.errors import TlKitError

forks = pytest.mark.skipif(NO_FORKS, reason="no fork server on this system")


def last_line(outcome: Outcome) -> str:
    assert outcome.out == ""
    return outcome.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["fintune"], "'finetune'"),
        (["finetune"], "MODEL"),
        (["finetune", "resnet18"], "--data"),
        (["finetune", "resnet18", "--data", ".", "--epohcs", "3"], "--epochs"),
        (["finetune", "resnet18", "--data", ".", "--epochs", "three"], "--epochs"),
        (["finetune", "resnet18", "--data", ".", "extra"], "extra"),
        (["predict", "x", "y.png", "--format", "xml"], "--format"),
        (["predict", "x", "y.png", "--top", "0"], "--top 0"),
        (["finetune", "resnet18", "--data", ".", "--policy", "lats:2"], "last"),
        (["finetune", "resnet18", "--data", ".", "--epochs", "0"], "--epochs 0"),
        (["finetune", "resnet18", "--data", ".", "--lr", "-1"], "--lr -1"),
        (["finetune", "resnet18", "--data", ".", "--seed", "-1"], "--seed -1"),
        (["ensemble", "no-such-folder", "none-either"], "no-such-folder"),
        (["evaluate", "no-such-folder", "--data", "."], "no-such-folder"),
        (["predict", "no-such-folder", "y.png"], "no-such-folder"),
        (["finetune", "resnet18", "--data", "no-such-data"], "no-such-data"),
        (["finetune", "resnet18", "--data", ""], "--data: the path is empty"),
        (["doctor", "--data="], "--data: the path is empty"),
        (["finetune", "resnet18", "--data", ".", "--out", ""], "--out: the path is empty"),
    ],
)
def test_user_errors(arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path, ("red", "green"), images=5)
    monkeypatch.chdir(tmp_path)
    done = tlkit(*arguments)
    assert done.code == 2
    assert done.err.count("error: ") == 1
    assert last_line(done).startswith("error: ")
    assert says in last_line(done)
    assert "Traceback" not in done.err


def test_an_unknown_model_names_its_neighbours(story: Story) -> None:
    done = tlkit("finetune", "resnet81", "--data", story.data)
    assert done.code == 2
    assert "resnet18" in last_line(done)


def test_debug_shows_the_traceback_and_the_line(story: Story) -> None:
    done = tlkit("evaluate", story.data, "--data", story.data, "--debug")
    assert done.code == 2
    assert "Traceback (most recent call last):" in done.err
    assert "CheckpointError" in done.err
    assert last_line(done).startswith("error: ")


@pytest.mark.parametrize(
    ("error", "line", "code"),
    [
        (TlKitError("a [red]b[/red] \x1b[2J\nc"), r"error: a [red]b[/red] \x1b[2J\nc", 2),
        (ValueError("first\nsecond"), "internal error: ValueError: first; run again with --debug and report it", 1),
        (RuntimeError(), "internal error: RuntimeError; run again with --debug and report it", 1),
        (MemoryError(), "error: memory ran out: choose a smaller --batch-size, --img-size or model", 2),
        (OSError(errno.ENOSPC, "No space left on device", "x.bin"), "error: x.bin: No space left on device", 2),
        (KeyboardInterrupt(), "interrupted", 130),
        (KeyboardInterrupt("the best is in ckpts/a-1"), "interrupted: the best is in ckpts/a-1", 130),
    ],
)
@pytest.mark.parametrize("json", [True, False])
def test_every_error_is_one_line(
    error: BaseException, line: str, code: int, json: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("tl_kit.evaluate", fail)
    done = tlkit("evaluate", "a", "--data", "b", *(["--json"] if json else []))
    assert (done.code, done.out, done.err) == (code, "", line + "\n")
    shown = tlkit("evaluate", "a", "--data", "b", "--debug")
    assert shown.code == code
    assert "Traceback" in shown.err
    assert shown.err.endswith(line + "\n")


@forks
def test_ctrl_c_keeps_the_best_checkpoint_and_says_where(tmp_path: Path) -> None:
    data = write_images(tmp_path / "images", images=40)
    options = ("--weights", "none", "--img-size", 64, "--policy", "full", "--epochs", 100_000, "--compile", "off")
    out = tmp_path / "run"
    # The rate is so small that validation never gets worse for long, and the run cannot end before the signal.
    options += ("--lr", 1e-7, "--schedule", "constant", "--out", out, "--json")
    process = Command(["finetune", MODEL, "--data", data, *options], tmp_path / "err", out=tmp_path / "out")
    assert process.wait_for("\nepoch 2 ")
    process.send(signal.SIGINT)
    assert process.wait() == 130, process.text()
    assert process.text().splitlines()[-1] == f"interrupted: the best checkpoint so far is in {out}"
    assert "Traceback" not in process.text()
    assert json.loads((tmp_path / "out").read_text())["status"] == "interrupted"
    done = tlkit("predict", out, data / "red", "--format", "csv")
    assert done.code == 0
    assert len(done.out.splitlines()) == 41


@pytest.mark.skipif(os.name == "nt", reason="pipes")
def test_a_reader_that_leaves_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = start("--version", stdout=writing)
    os.close(writing)
    _, err_text = process.communicate(timeout=60)
    assert (process.returncode, err_text) == (141, "")


@pytest.mark.skipif(os.name == "nt", reason="pipes")
def test_the_work_goes_on_when_nobody_reads_the_messages(story: Story, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = start("doctor", "--data", story.data, "--json", stderr=writing)
    os.close(writing)
    out_text, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert json.loads(out_text)["blocks"] is False


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        process = start("--version", stdout=full.fileno())
        _, err_text = process.communicate(timeout=60)
    assert (process.returncode, err_text) == (2, "error: No space left on device\n")


@forks
def test_ctrl_c_before_the_first_epoch_leaves_nothing(tmp_path: Path) -> None:
    data = write_images(tmp_path / "images", images=40)
    options = ("--weights", "none", "--policy", "full", "--epochs", 100_000)
    command = ("finetune", MODEL, "--data", data, *options, "--out", tmp_path / "run")
    process = Command(command, tmp_path / "err", out=tmp_path / "out")
    assert process.wait_for("\n")  # the scan is over, the model is yet to be built
    process.send(signal.SIGINT)
    assert process.wait() == 130
    assert ((tmp_path / "out").read_text(), process.text().splitlines()[-1]) == ("", "interrupted")
    assert "Traceback" not in process.text()
    assert not (tmp_path / "run").exists()

"""``tlkit finetune --resume``, and how a run ends when something from outside ends it: a line, a code, whole files."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor

from tests.cli.helpers import tlkit
from tests.helpers import NEARLY_SQUARE, write_images
from tests.killing import assert_the_same
from tests.torture.chains import Chain
from tests.torture.processes import NO_FORKS, Command
from tests.torture.rights import bound_by_rights
from tl_kit import load
from tl_kit.storage.checkpoint import is_checkpoint

forks = pytest.mark.skipif(NO_FORKS, reason="no fork server on this system")
OPTIONS = ("--weights", "none", "--img-size", 32, "--batch-size", 4, "--policy", "full", "--augment", "strong")
DROPPED = ("--dropout", 0.3, "--ema", 0.9, "--mixup", 0.4)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("resume") / "images", images=12, size=NEARLY_SQUARE)


@pytest.fixture(scope="module")
def whole(data: Path) -> Path:
    """The run of ``short`` that nothing disturbed."""
    out = data.parent / "whole"
    assert tlkit(*short(data, out)).code == 0
    return out


def command(data: Path, *more: object) -> tuple[object, ...]:
    return ("finetune", "test_resnet", "--data", data, *OPTIONS, "--save-every", 0.01, *more)


def short(data: Path, out: Path) -> tuple[object, ...]:
    return command(data, "--epochs", 8, *DROPPED, "--out", out)


def endless(data: Path, out: Path, log: Path, *more: object, limits: Callable[[], None] | None = None) -> Command:
    """A run that does not end by itself in the time of a test, and improves for long: its rate is small."""
    options = ("--epochs", 10_000, "--lr", 1e-6, "--schedule", "constant", "--compile", "off", "--out", out)
    return Command(command(data, *options, *more), log, limits=limits)


def left_over(folder: Path) -> list[str]:
    """Files that were half written."""
    return [str(path) for path in folder.rglob("*.tmp")]


@forks
def test_kill_9_four_times(data: Path, tmp_path: Path) -> None:
    """Each time soon after an epoch, so that twelve epochs are enough on a machine that becomes faster, too."""
    chain = Chain(command(data, "--epochs", 12, *DROPPED), tmp_path / "run", mark="epoch ", share=0.05)
    whole = chain.whole()
    assert chain.killed(4, seed=1) == whole
    assert len(chain.kills) == 4
    assert any("state-" in kill for kill in chain.kills)
    assert not left_over(tmp_path)


@forks
def test_sigterm_saves_and_says_how_to_go_on(data: Path, whole: Path, tmp_path: Path) -> None:
    process = Command([*short(data, tmp_path / "run"), "--save-every", 1000], tmp_path / "run.log")
    assert process.wait_for("\nepoch 2 ")
    process.send(signal.SIGTERM)
    assert process.wait() == 143
    lines = process.text().splitlines()
    assert lines[-2:] == [f"tlkit finetune --resume {tmp_path / 'run'} goes on from here", "terminated"]
    assert "Traceback" not in process.text()
    assert list((tmp_path / "run" / "state").glob("*.json")), "saved because it was asked to end"
    assert is_checkpoint(tmp_path / "run")
    done = tlkit("finetune", "--resume", tmp_path / "run", "--json")
    assert done.json["status"] == "finished"
    assert "taken up in epoch" in done.err
    assert_the_same(tmp_path / "run", whole)


@forks
def test_sigterm_before_there_is_anything_to_save_starts_over(data: Path, tmp_path: Path) -> None:
    process = Command(command(data, "--epochs", 2, "--policy", "lp-ft", "--out", tmp_path / "run"), tmp_path / "log")
    assert process.wait_for("weights: ")
    while not (tmp_path / "run" / "tlkit.json").exists():
        time.sleep(0.001)
    process.send(signal.SIGTERM)
    assert process.wait() == 143
    done = tlkit("finetune", "--resume", tmp_path / "run")
    assert done.code == 0, done.err


def slow_tidying() -> None:
    """In the process: what follows the first Ctrl-C takes two minutes, as it may with a hundred thousand images."""
    from tl_kit.finetuning.batch_sources import PlainSource

    score = PlainSource.logits

    def slow(self: PlainSource, split: str) -> Tensor:
        if split == "test":
            self.run.reporter.message("tidying")
            time.sleep(120)
        return score(self, split)

    PlainSource.logits = slow


@forks
def test_ctrl_c_twice_ends_at_once_with_all_files_whole(data: Path, tmp_path: Path) -> None:
    process = endless(data, tmp_path / "run", tmp_path / "log", limits=slow_tidying)
    assert process.wait_for("\nepoch 2 "), process.text()
    process.send(signal.SIGINT)
    assert process.wait_for("tidying"), process.text()
    started = time.monotonic()
    process.send(signal.SIGINT)
    assert process.wait(60) == 130
    assert time.monotonic() - started < 10
    lines = process.text().splitlines()
    assert lines[-2:] == [f"tlkit finetune --resume {tmp_path / 'run'} goes on from here", "interrupted"]
    assert "Traceback" not in process.text()
    assert not left_over(tmp_path / "run")
    load(tmp_path / "run")


@forks
def test_ctrl_c_once_leaves_a_run_that_goes_on(data: Path, whole: Path, tmp_path: Path) -> None:
    process = Command(short(data, tmp_path / "run"), tmp_path / "log")
    assert process.wait_for("\nepoch 2 ")
    process.send(signal.SIGINT)
    assert process.wait() == 130
    assert process.text().splitlines()[-1] == f"interrupted: the best checkpoint so far is in {tmp_path / 'run'}"
    assert f"tlkit finetune --resume {tmp_path / 'run'} goes on" in process.text()
    assert tlkit("finetune", "--resume", tmp_path / "run").code == 0
    assert_the_same(tmp_path / "run", whole)


@forks
def test_a_second_run_on_the_folder_is_refused(data: Path, tmp_path: Path) -> None:
    process = endless(data, tmp_path / "run", tmp_path / "log")
    assert process.wait_for("\nepoch 1 ")
    for again in (command(data, "--out", tmp_path / "run"), ("finetune", "--resume", tmp_path / "run")):
        done = tlkit(*again)
        assert (done.code, done.out) == (2, "")
        assert done.err.splitlines()[-1] == (
            f"error: {tmp_path / 'run'}: another process is at work on this run; wait for it"
        )
    assert process.kill() == -9
    resumed = Command(["finetune", "--resume", tmp_path / "run"], tmp_path / "resumed.log")
    assert resumed.wait_for("taken up in epoch")
    assert tlkit("finetune", "--resume", tmp_path / "run").code == 2, "two of them at once"
    resumed.kill()


@forks
def test_a_folder_that_vanishes_is_named(data: Path, tmp_path: Path) -> None:
    process = endless(data, tmp_path / "parent" / "run", tmp_path / "log")
    assert process.wait_for("\nepoch 1 ")
    shutil.rmtree(tmp_path / "parent" / "run", ignore_errors=True)
    while (tmp_path / "parent" / "run").exists():
        shutil.rmtree(tmp_path / "parent" / "run", ignore_errors=True)
    assert process.wait() == 2
    last = process.text().splitlines()[-1]
    named = (tmp_path / "parent" / "run", tmp_path / "parent" / "run" / "state")  # whichever was written to first
    assert last in [f"error: {folder}: has vanished; nothing more can be written there" for folder in named]
    assert not list((tmp_path / "parent").iterdir())


@forks
@pytest.mark.skipif(sys.platform != "linux", reason="capabilities")
def test_a_folder_that_may_not_be_written_any_more_is_named(data: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = Command(short(data, out), tmp_path / "log", limits=bound_by_rights)
    assert process.wait_for("\nepoch 2 ")
    for folder in (out, out / "state"):
        folder.chmod(0o555)
    assert process.wait() == 2
    assert process.text().splitlines()[-1] == (
        f"error: {out}: cannot be written (Permission denied); make it writable, or choose another folder"
    )
    assert process.text().count("the run's state is not saved") <= 1
    for folder in (out, out / "state"):
        folder.chmod(0o755)
    assert not left_over(out)
    load(out)
    assert tlkit("finetune", "--resume", out).code == 0
    assert_the_same(out, whole)


def test_no_other_option_is_taken_beside_it(tmp_path: Path) -> None:
    for given, name in (
        (("resnet18",), "MODEL"),
        (("--data", "."), "--data"),
        (("--seed", 0), "--seed"),
        (("--save-every", 3), "--save-every"),
        (("--plot",), "--plot"),
    ):
        done = tlkit("finetune", "--resume", tmp_path, *given)
        assert (done.code, done.out) == (2, "")
        assert (
            done.err
            == f"error: {name}: --resume continues with the options that the run began with; leave this option out\n"
        )


def test_a_finished_run_is_no_error(data: Path, tmp_path: Path) -> None:
    assert tlkit(*command(data, "--epochs", 1, "--out", tmp_path / "run")).code == 0
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    done = tlkit("finetune", "--resume", tmp_path / "run")
    assert (done.code, done.out) == (0, "")
    assert done.err == f"{tmp_path / 'run'}: the run is finished; there is nothing to resume\n"
    again = tlkit("finetune", "--resume", tmp_path / "run", "--json")
    assert again.json == {"checkpoint": str(tmp_path / "run"), "status": "finished"}
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


@pytest.mark.parametrize("folder", ["no-such-folder", "."])
def test_where_there_is_no_run_a_line_says_so(folder: str, tmp_path: Path) -> None:
    done = tlkit("finetune", "--resume", tmp_path / folder)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"error: --resume {tmp_path / folder}: ")
    assert done.err.count("\n") == 1


@pytest.mark.parametrize("every", ["0", "none"])
def test_saving_can_be_turned_off(every: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tl_kit.storage.saved_states.StateFolder.save", lambda *_: pytest.fail("saved"))
    done = tlkit(*command(data, "--epochs", 1, "--out", tmp_path / "run", "--save-every", every))
    assert done.code == 0, done.err
    assert json.loads((tmp_path / "run" / "tlkit.json").read_text())["config"]["save"]["every"] == 0


@pytest.mark.parametrize("every", ["-1", "soon", "inf", "nan"])
def test_what_is_no_time_is_refused(every: str, data: Path) -> None:
    done = tlkit(*command(data, "--save-every", every))
    assert (done.code, done.err) == (2, f"error: --save-every {every}: must be a number of seconds, or none\n")

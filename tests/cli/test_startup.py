"""Start-up: every second of a process that the shell started is in a named stage."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import children
from tests.cli.helpers import tlkit
from tests.helpers import write_images
from tl_kit.clock import STAGES

PROGRAM = "from tl_kit.cli import main; main()"


def test_stages_and_startup_are_the_whole_process(tmp_path: Path) -> None:
    data = write_images(tmp_path / "images")
    options = ["--data", data, "--weights", "none", "--img-size", 32, "--epochs", 1, "--policy", "full", "--json"]
    command = [sys.executable, "-c", PROGRAM, "finetune", "test_resnet", *options, "--out", tmp_path / "run"]
    began = time.monotonic()
    done: subprocess.CompletedProcess[str] = children.run(command, cwd=Path(__file__).parents[2])
    whole = time.monotonic() - began
    assert done.returncode == 0, done.stderr
    seconds = json.loads(done.stdout)["seconds"]
    assert sum(seconds[stage] for stage in ("startup", *STAGES)) == pytest.approx(seconds["total"], rel=0.02)
    assert seconds["startup"] > 0.5, "torch alone takes longer"
    assert seconds["startup"] < seconds["first_batch"] < seconds["total"] < whole
    record = json.loads((tmp_path / "run" / "tlkit.json").read_text())["seconds"]
    assert "startup" not in record
    assert record["total"] == pytest.approx(seconds["total"] - seconds["startup"], abs=1e-6)


def test_a_program_that_calls_the_command_has_no_startup_of_its_own(tmp_path: Path) -> None:
    data = write_images(tmp_path / "images")
    options = ("--data", data, "--weights", "none", "--img-size", 32, "--policy", "head", "--json")
    done = tlkit("finetune", "test_resnet", *options, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    assert set(json.loads(done.out)["seconds"]) == {"total", *STAGES}

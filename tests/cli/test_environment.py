"""Variables that schedulers and launchers leave in every environment: no command but ``finetune`` heeds them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from accelerate.state import AcceleratorState

import tl_kit
from tests.cli.conftest import Story
from tests.cli.helpers import MODEL, TINY, tlkit
from tests.helpers import quick_config, write_images
from tl_kit import FinetuneConfig, finetune, plan, resume
from tl_kit.config import GroupConfig
from tl_kit.errors import TlKitError
from tl_kit.machine.process_group import group_of_environment

pytestmark = pytest.mark.usefixtures("plain_pictures")

NO_GROUP = {
    "rank alone": {"RANK": "3"},
    "local rank alone": {"LOCAL_RANK": "3"},
    "local rank on a missing GPU": {"LOCAL_RANK": "7", "RANK": "7", "WORLD_SIZE": "1"},
    "one process": {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"},
    "nowhere to meet": {"RANK": "1", "WORLD_SIZE": "2"},
    "no such rank": {"RANK": "2", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"},
    "no rank": {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"},
    "words": {"RANK": "abc", "WORLD_SIZE": "two", "LOCAL_RANK": "x", "MASTER_ADDR": "127.0.0.1"},
    "nothing in them": {"RANK": "", "WORLD_SIZE": "", "LOCAL_RANK": "", "MASTER_ADDR": "", "MASTER_PORT": ""},
    "negative": {"RANK": "-1", "WORLD_SIZE": "-2", "LOCAL_RANK": "-1"},
    "other digits": {"RANK": "١", "WORLD_SIZE": "٢", "MASTER_ADDR": "127.0.0.1"},
    "no port": {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "70000"},
    "SLURM": {"SLURM_PROCID": "3", "SLURM_NTASKS": "4", "SLURM_LOCALID": "3"},
    "MPI": {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "1"},
    "PMI": {"PMI_RANK": "1", "PMI_SIZE": "2"},
}
# A sound description of a group; nobody is there.
GROUP = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """accelerate reads the environment once a process: let it read again."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def put(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("name", ["words", "rank alone", "group"])
def test_every_other_command_speaks_and_writes(
    name: str, story: Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(monkeypatch, NO_GROUP.get(name, GROUP))
    data, checkpoint = ("--data", story.data), story.checkpoint
    commands = {
        "evaluate": ("evaluate", checkpoint, *data),
        "predict": ("predict", checkpoint, story.data / "2"),
        "ensemble": ("ensemble", checkpoint, story.second.json["checkpoint"], "--out", tmp_path / "both"),
        "plan": ("plan", MODEL, *data, *TINY, "--policy", "full"),
        "doctor": ("doctor", *data),
        "models": ("models", "resnet18"),
        "cache": ("cache",),
    }
    for command, arguments in commands.items():
        done = tlkit(*arguments)
        assert (command, done.code) == (command, 0), done.err
        assert done.out.strip(), command
        assert done.err.strip() or command in ("models", "cache"), command
    assert (tmp_path / "both" / "ensemble.json").is_file()


def test_an_ensemble_s_student_is_trained_alone(story: Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(monkeypatch, GROUP)
    original = tl_kit.student_config

    def untrained(*given: Any, **options: Any) -> FinetuneConfig:  # its weights are not on this machine
        return replace(original(*given, **options), weights="none", img_size=48, epochs=1)

    monkeypatch.setattr(tl_kit, "student_config", untrained)
    monkeypatch.setattr(tl_kit, "check_student", lambda model: None)
    members = (story.checkpoint, story.second.json["checkpoint"])
    done = tlkit("ensemble", *members, "--out", tmp_path / "both", "--distill", "test_vit", "--json")
    assert Path(done.json["distillation"]["checkpoint"], "model.safetensors").is_file()


@pytest.mark.parametrize("name", NO_GROUP)
def test_finetune_without_a_group_trains_alone(
    name: str, tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(monkeypatch, NO_GROUP[name])
    assert group_of_environment() is None
    done = tlkit("finetune", MODEL, "--data", images, *TINY, "--policy", "head", "--out", tmp_path / "run")
    assert done.code == 0, done.err
    assert f"checkpoint: {tmp_path / 'run'}" in done.out
    assert (tmp_path / "run" / "model.safetensors").is_file()
    half_said = name not in ("rank alone", "local rank alone", "local rank on a missing GPU", "one process", "SLURM")
    assert ("trains alone" in done.err) == (half_said and name != "nothing in them")


def test_processes_that_do_not_come_are_named_in_time(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(monkeypatch, GROUP)
    monkeypatch.setattr(GroupConfig, "wait", 1.0)
    monkeypatch.setattr(GroupConfig, "patience", 0.0)
    started = time.monotonic()
    done = tlkit("finetune", MODEL, "--data", images, *TINY, "--policy", "head", "--out", tmp_path / "run")
    assert time.monotonic() - started < 30
    assert done.code == 2
    waiting, error = done.err.splitlines()
    assert (
        waiting
        == "RANK=1 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=1: waiting for the other processes, 1 s at most"
    )
    assert error.startswith(
        "error: RANK=1 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=1: the other processes did not"
    )
    assert "take RANK and WORLD_SIZE out of the environment" in error
    assert not (tmp_path / "run").exists()


def test_a_plan_from_python_needs_no_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(monkeypatch, GROUP)
    config = quick_config(write_images(tmp_path / "images", images=5), tmp_path / "run")
    assert plan(config).policy == "full"
    monkeypatch.setattr(GroupConfig, "wait", 0.5)
    with pytest.raises(TlKitError, match="did not join"):  # after a plan alone, training still looks for its group
        finetune(config)


def test_a_run_is_taken_up_again_whatever_half_of_a_group_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(monkeypatch, NO_GROUP["words"])
    with pytest.raises(TlKitError, match="holds no run"):
        resume(tmp_path)
    put(monkeypatch, GROUP)
    with pytest.raises(TlKitError, match="holds no run"):  # told before it waits for the others
        resume(tmp_path)

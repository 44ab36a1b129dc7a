"""When a run saves its state, and what it does where it cannot."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import Listener, quick, write_images
from tests.killing import EVERY_STEP, digest
from tl_kit import SaveConfig
from tl_kit.errors import CheckpointError
from tl_kit.finetuning import saved_state as saving
from tl_kit.storage.saved_states import StateFolder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), images=9)


class Clock:
    """Goes ahead by ``step`` seconds each time that a fit can be taken up again; a save takes ``cost``."""

    def __init__(self, *, step: float, cost: float) -> None:
        self.now, self.step, self.cost = 1000.0, step, cost
        self.saved: list[float] = []
        self.calls = 0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Clock:
    clock = Clock(**request.param)
    call, save = saving.StateSaver.on_resumable, StateFolder.save

    def called(self: saving.StateSaver, result: Any) -> None:
        clock.now += clock.step
        clock.calls += 1
        call(self, result)

    def saved(self: StateFolder, tree: object) -> int:
        clock.saved.append(clock.now)
        clock.now += clock.cost
        return save(self, tree)

    monkeypatch.setattr(saving.StateSaver, "on_resumable", called)
    monkeypatch.setattr(StateFolder, "save", saved)
    monkeypatch.setattr(saving, "time", clock)
    jumping = iter(range(10**9, 0, -(10**6)))
    monkeypatch.setattr(time, "time", lambda: float(next(jumping)))  # the wall clock is of no account
    return clock


@pytest.mark.parametrize(
    ("clock", "save", "expected"),
    [
        ({"step": 10.0, "cost": 0.0}, SaveConfig(every=30), [1030, 1060, 1090, 1120]),
        ({"step": 10.0, "cost": 0.0}, SaveConfig(every=5), [1010 + 10 * n for n in range(12)]),
        ({"step": 10.0, "cost": 1.0}, SaveConfig(every=30), [1030, 1061, 1092, 1123]),
        ({"step": 10.0, "cost": 4.0}, SaveConfig(every=30), [1030, 1114]),
        ({"step": 10.0, "cost": 4.0}, SaveConfig(every=30, most_share=0.2), [1030, 1064, 1098, 1132]),
        ({"step": 10.0, "cost": 0.0}, SaveConfig(every=0), []),
    ],
    indirect=["clock"],
)
def test_it_saves_by_the_monotonic_clock_and_within_its_share_of_the_time(
    clock: Clock, save: SaveConfig, expected: list[float], data: Path, tmp_path: Path
) -> None:
    quick(data, tmp_path / "run", epochs=4, save=save)
    assert clock.calls == 12, "two steps and an end in each of four epochs"
    assert clock.saved == expected


def test_a_disk_that_is_full_is_told_once_and_training_goes_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick(data, tmp_path / "whole")

    def full(self: StateFolder, tree: object) -> int:
        raise CheckpointError(f"{self.folder}: cannot be written (No space left on device); free space")

    monkeypatch.setattr(StateFolder, "save", full)
    listener = Listener()
    quick(data, tmp_path / "run", save=EVERY_STEP, reporter=listener)
    told = [message for message in listener.messages if "state" in message]
    assert told == [
        f"the run's state is not saved: {tmp_path / 'run' / 'state'}: cannot be written (No space left on device); "
        "free space; training goes on"
    ]
    assert digest(tmp_path / "run") == digest(tmp_path / "whole")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no /proc")
@pytest.mark.parametrize("file", ["model.safetensors", "tlkit.json", "metrics.jsonl", "config.json"])
def test_a_disk_that_is_full_anywhere_else_is_one_line_and_leaves_whole_files(
    file: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every write of a file in turn meets a full disk, until one run has more room than it needs."""
    refused = 0
    while refused < 20:
        with monkeypatch.context() as patch:
            refuse(file, refused, patch)
            try:
                quick(data, tmp_path / f"{refused}", save=SaveConfig(every=0))
                break
            except CheckpointError as error:
                said = str(error)
        assert said.startswith(
            f"{tmp_path / f'{refused}'}: cannot be written (No space left on device); free space, or "
        )
        assert not list(tmp_path.rglob("*.tmp"))
        refused += 1
    assert 0 < refused < 20


def refuse(file: str, room: int, patch: pytest.MonkeyPatch) -> None:
    """No room for more than so many of a file's writes."""
    sync, written = os.fsync, []

    def full(descriptor: int) -> None:
        if file in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            written.append(descriptor)
            if len(written) > room:
                raise OSError(28, "No space left on device")
        sync(descriptor)

    patch.setattr(os, "fsync", full)

"""Ctrl-C in any phase: the weights of the last finished epoch, and an audit of exactly the phases there were."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.helpers import NEARLY_SQUARE, Listener, quick, write_images
from tl_kit import FinetuneResult
from tl_kit.config import CacheConfig

EPOCHS = 4


class Watcher(Listener):
    """Hashes the saved weights after each epoch, and presses Ctrl-C after one of them."""

    def __init__(self, weights: Path, *, stop_after: int = 0, stop_in: str = "") -> None:
        super().__init__()
        self.weights, self.stop_after, self.stop_in = weights, stop_after, stop_in
        self.hashes: list[str] = []
        self.rates: list[float] = []

    def start(self, stage: str, total: int) -> None:
        if self.stop_in and stage.startswith(self.stop_in):
            raise KeyboardInterrupt

    def epoch(self, row: object) -> None:
        assert isinstance(row, Mapping)
        self.hashes.append(digest(self.weights))
        self.rates.append(row["lr"])
        if len(self.hashes) == self.stop_after:
            raise KeyboardInterrupt


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), size=NEARLY_SQUARE)


@pytest.fixture(autouse=True)
def _every_epoch_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tl_kit.training.loop.better", lambda *_scores: True)


def run(data: Path, out: Path, policy: str, watcher: Watcher) -> FinetuneResult:
    cache = CacheConfig(directory=out.parent / f"cache-{out.name}")
    return quick(data, out, policy=policy, epochs=EPOCHS, cache=cache, reporter=watcher)


@pytest.mark.parametrize("policy", ["lp-ft", "gradual", "gradual:2"])
def test_the_last_finished_epoch_is_what_is_left(data: Path, tmp_path: Path, policy: str) -> None:
    whole = Watcher(tmp_path / "whole" / "model.safetensors")
    finished = run(data, tmp_path / "whole", policy, whole)
    assert len(whole.hashes) == EPOCHS
    for epochs in range(1, EPOCHS + 1):
        out = tmp_path / f"stopped-{epochs}"
        watcher = Watcher(out / "model.safetensors", stop_after=epochs)
        stopped = run(data, out, policy, watcher)
        assert stopped.status == "interrupted"
        assert stopped.epochs == epochs
        assert digest(out / "model.safetensors") == whole.hashes[epochs - 1]
        assert watcher.rates == whole.rates[:epochs], "the schedule is that of the whole run"
        all_phases = [*finished.audit["phases"], {"frozen_tensors": finished.audit["frozen_tensors"], "ok": True}]
        passed = stopped.audit["phases"]
        assert passed == all_phases[: len(passed)]
        assert stopped.audit["frozen_tensors"] == all_phases[len(passed)]["frozen_tensors"]
        assert stopped.audit["ok"]


@pytest.mark.parametrize(
    ("policy", "stage"),
    [
        ("lp-ft", "features train"),
        ("lp-ft", "epoch 1/"),
        ("gradual", "features train"),
        ("gradual", "features val"),  # of its first phase, which trains the head on cached features
        ("gradual", "epoch 1/"),
    ],
)
def test_before_anything_is_worth_keeping_nothing_is_left(data: Path, tmp_path: Path, policy: str, stage: str) -> None:
    """In the head's pass nothing is kept; in the first epoch after it, the fitted head is."""
    out = tmp_path / "run"
    watcher = Watcher(out / "model.safetensors", stop_in=stage)
    if stage == "epoch 1/":
        stopped = run(data, out, policy, watcher)
        assert (stopped.status, stopped.epochs) == ("interrupted", 0)
        assert [phase["phase"] for phase in stopped.audit["phases"]] == ["head"]
        return
    with pytest.raises(KeyboardInterrupt):
        run(data, out, policy, watcher)
    assert not out.exists()

"""A run that is killed and taken up again ends with the weights of one that was not, to the last bit."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.api.helpers import MODEL, Listener, quick, write_images
from tl_kit import CrossValidation, FinetuneConfig, FinetuneResult, SaveConfig, cross_validate, finetune, resume
from tl_kit.api import saving
from tl_kit.config import AugmentConfig, CacheConfig, LoopConfig, RangeTestConfig, RegularizationConfig, RuntimeConfig
from tl_kit.training import stateful

EVERY_STEP = SaveConfig(every=1e-9, most_share=1.0)
TIMES = ("images_per_second", "data_wait")
REGULARIZED = RegularizationConfig(dropout=0.3, drop_connect=0.2, l2=1e-3, label_smoothing=0.1, ema=0.9)

# What is particular about a run -> its options. Each has something in its state that the others do not have.
RUNS: dict[str, dict[str, Any]] = {
    "full, no augmentation": {"augment": "none"},
    "full, augmented, momentum": {"augment": "strong"},
    "full, dropout, DropConnect, EMA, AdamW": {"optimizer": "adamw", "regularization": REGULARIZED},
    "full, mixup and cutmix": {"regularization": RegularizationConfig(mixup=0.4, cutmix=1.0)},
    "full, balanced sampler": {"balance": "sampler"},
    "full, range test": {"lr": "auto", "range_test": RangeTestConfig(steps=8)},
    "full, plateau and patience": {
        "schedule": "plateau",
        "schedule_options": ("patience=0",),
        "patience": 1,
        "epochs": 6,
    },
    "full, layer decay, Kron": {"optimizer": "kron", "loop": LoopConfig(warmup_epochs=0.0, layer_decay=0.7)},
    "full, second order": {"optimizer": "adahessian", "lr": 0.01},
    "full, batches of one": {"batch_size": 1, "epochs": 1},
    "head by gradient, dropout": {"policy": "head", "regularization": RegularizationConfig(dropout=0.4)},
    "last:2 on cached views": {"policy": "last:2", "epochs": 3},
    "last:2 without a cache": {"policy": "last:2", "cache": CacheConfig(size_gb=0)},
    "lp-ft": {"policy": "lp-ft"},
    "gradual": {"policy": "gradual", "epochs": 5},
    "gradual:2, EMA": {"policy": "gradual:2", "epochs": 5, "regularization": RegularizationConfig(ema=0.9)},
    "auto": {"policy": "auto"},
}


class KilledError(BaseException):
    """Stands for SIGKILL: what is on disk when it is raised is all that is left."""


class Killer:
    """Ends the process's work at the n-th time that a fit can be taken up again; the folder is kept as it is then."""

    def __init__(self, out: Path, at: int) -> None:
        self.out, self.at, self.seen = out, at, 0
        self.kept = out.with_name(f"{out.name}-killed")

    def __call__(self, _saver: object) -> None:
        self.seen += 1
        if self.seen == self.at:
            shutil.copytree(self.out, self.kept)
            raise KilledError

    def restore(self) -> None:
        """Whatever the process tidied up after it was "killed", a real one would have left."""
        shutil.rmtree(self.out, ignore_errors=True)
        self.kept.rename(self.out)


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def rows(folder: Path) -> list[dict[str, float]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in lines]


def meta(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "tlkit.json").read_text())
    for name in ("seconds", "checkpoint"):
        del content[name]
    del content["config"]["out"]
    del content["config"]["save"]
    return content


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), images=9)


def train(data: Path, out: Path, options: Mapping[str, Any], *, save: SaveConfig = EVERY_STEP) -> FinetuneResult:
    settings = {"epochs": 3, "cache": CacheConfig(directory=data.parent / "cache"), **options}
    return quick(data, out, save=save, **settings)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[object], None]]:
    """What is called after each step's state may have been saved."""
    called: list[Callable[[object], None]] = []
    save = saving.Saver.__call__

    def saved(self: saving.Saver, result: Any) -> None:
        save(self, result)
        for one in called:
            one(self)

    monkeypatch.setattr(saving.Saver, "__call__", saved)
    return called


def kill(data: Path, out: Path, options: Mapping[str, Any], steps: list[Callable[[object], None]], at: int) -> bool:
    """Whether there was such a time to kill at; ``out`` is then what the killed process has left."""
    killer = Killer(out, at)
    steps[:] = [killer]
    try:
        train(data, out, options)
    except KilledError:
        killer.restore()
        return True
    finally:
        steps.clear()
    return False


def assert_the_same(resumed: Path, whole: Path) -> None:
    assert digest(resumed) == digest(whole)
    assert rows(resumed) == rows(whole)
    assert meta(resumed) == meta(whole)
    assert {path.name for path in resumed.iterdir()} == {path.name for path in whole.iterdir()}


@pytest.mark.parametrize("name", RUNS)
def test_killed_at_some_steps_it_ends_as_if_it_had_not_been(
    name: str, data: Path, tmp_path: Path, steps: list[Callable[[object], None]]
) -> None:
    counter = Killer(tmp_path / "whole", at=0)
    steps.append(counter)
    train(data, tmp_path / "whole", RUNS[name])
    assert counter.seen > 3
    for at in sorted({1, counter.seen // 2, counter.seen - 1, counter.seen}):
        out = tmp_path / f"killed-{at}"
        assert kill(data, out, RUNS[name], steps, at)
        assert json.loads((out / "tlkit.json").read_text())["status"] == "running"
        resume(out)
        assert_the_same(out, tmp_path / "whole")

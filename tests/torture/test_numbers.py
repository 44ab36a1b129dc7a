"""Numbers that are none and memory that runs out, at every step of a run: it ends well, with the weights it should."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

import tl_kit
from tests.finetuning.test_short_memory import CONFIG, memory_for
from tests.helpers import quick, write_images
from tests.torture.table import record
from tl_kit import CacheConfig, RegularizationConfig
from tl_kit.storage.checkpoint import load_checkpoint
from tl_kit.training import loop
from tl_kit.training.task import Task

pytestmark = pytest.mark.torture

RUNS: dict[str, dict[str, Any]] = {
    "full": {},
    "AdamW, EMA, dropout": {"optimizer": "adamw", "regularization": RegularizationConfig(ema=0.9, dropout=0.2)},
    "last:2": {"policy": "last:2"},
    "gradual": {"policy": "gradual", "epochs": 5},
    "lp-ft": {"policy": "lp-ft"},
    "second order": {"optimizer": "adahessian", "lr": 0.01},
    "Kron": {"optimizer": "kron"},
    "snapshots": {"snapshots": 3},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), images=9)


@pytest.mark.parametrize("kind", ["weight", "loss"])
def test_nan_at_every_step(kind: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, tries, lost = loop.train_step, 0, []
    for name, options in RUNS.items():
        settings = {"epochs": 3, "cache": CacheConfig(directory=tmp_path / "cache"), **options}
        for step in itertools.count():
            counter = itertools.count()

            def spoiled(task: Task, *args: Any, step: int, at: int = step, counter: Any = counter) -> float:
                hit = next(counter) == at
                if hit and kind == "loss":
                    raise_from = task.loss.objective
                    task = replace(task, loss=replace(task.loss, objective=lambda a, b: raise_from(a, b) * torch.nan))
                value = original(task, *args, step=step)
                if hit and kind == "weight":  # after a finite loss: the step itself spoils them
                    with torch.no_grad():
                        next(p for p in task.model.parameters() if p.requires_grad).fill_(torch.nan)
                return value

            monkeypatch.setattr(loop, "train_step", spoiled)
            out = tmp_path / f"{kind}-{name}-{step}".replace(":", "")
            run = quick(data, out, on_nan="rollback", **settings)
            if next(counter) <= step:  # there is no such step
                break
            tries += 1
            sound = all(bool(t.isfinite().all()) for t in load_checkpoint(out).model.state_dict().values())
            same = tl_kit.evaluate(out, data, split="val").metrics == run.val
            if not (sound and same and run.status == "finished" and run.epochs == settings["epochs"]):
                lost.append((name, step))
    record(f"a {kind} that is NaN in one step", tries=tries, survived=tries - len(lost), lost=lost)


@pytest.mark.parametrize("images", range(2, 13))
def test_memory_for_so_many_images(images: int, data: Path, tmp_path: Path) -> None:
    lost = []
    runs = ({"policy": "full"}, {"policy": "last:2"}, {"policy": "full", "balance": "loss"}, {"policy": "lp-ft"})
    for number, options in enumerate(runs):
        found = []
        for limit in (10**9, images):
            out = tmp_path / f"{number}-{limit}"
            cache = CacheConfig(directory=tmp_path / f"cache-{number}-{limit}")
            with memory_for(limit):
                tl_kit.finetune(replace(CONFIG, data=data, out=out, cache=cache, **options))
            found.append(safetensors.torch.load_file(out / "model.safetensors"))
        if not all(torch.allclose(found[1][name], tensor, rtol=0, atol=1e-5) for name, tensor in found[0].items()):
            lost.append((options, images))
    record("memory for a part of a batch", tries=len(runs), survived=len(runs) - len(lost), lost=lost)

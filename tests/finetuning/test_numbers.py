"""Numbers that are none, in a run: it stops with its best epoch, or goes back; and evaluation divides by no zero."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tl_kit
from tests.helpers import NEARLY_SQUARE, Listener, quick, write_images
from tests.killing import EVERY_STEP, Copies, digest, killing
from tl_kit import CacheConfig, RegularizationConfig, resume
from tl_kit.errors import TrainingError
from tl_kit.finetuning import preparation
from tl_kit.storage.checkpoint import load_checkpoint
from tl_kit.training import loop
from tl_kit.training.task import Task

STEPS = 2  # an epoch


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), images=9, size=NEARLY_SQUARE)


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[float]]:
    """Makes the loss of the n-th steps NaN by spoiling a weight before them; gives the rates of all steps."""

    def at(*steps: int, always: bool = False) -> list[float]:
        original, counter, rates = loop.train_step, itertools.count(), []

        def spoiled(task: Task, *args: Any, **options: Any) -> float:
            rates.append(task.optimizer.param_groups[-1]["lr"])
            number = next(counter)
            if number in steps or (always and number >= steps[0]):
                parameter = next(p for p in task.model.parameters() if p.requires_grad)
                with torch.no_grad():
                    parameter.fill_(float("nan"))
            return original(task, *args, **options)

        monkeypatch.setattr(loop, "train_step", spoiled)
        return rates

    return at


OPTIONS: dict[str, dict[str, Any]] = {
    "full": {},
    "full, AdamW, EMA": {"optimizer": "adamw", "regularization": RegularizationConfig(ema=0.9, dropout=0.2)},
    "last:2": {"policy": "last:2"},
    "gradual": {"policy": "gradual", "epochs": 5},
    "gradual, second order": {"policy": "gradual", "epochs": 5, "optimizer": "adahessian", "lr": 0.01},
    "lp-ft": {"policy": "lp-ft"},
    "second order": {"optimizer": "adahessian", "lr": 0.01},
    "Kron": {"optimizer": "kron"},
    "plateau": {"schedule": "plateau"},
}


@pytest.mark.parametrize(
    ("name", "step"), [*((name, 5) for name in OPTIONS), ("full", 1), ("last:2", 1), ("gradual", 1), ("plateau", 1)]
)
def test_a_run_goes_back_and_ends_well(
    name: str, step: int, data: Path, tmp_path: Path, poison: Callable[..., list[float]]
) -> None:
    """To the epoch before; of each policy also to its start, which is saved for itself."""
    rates = poison(step)
    options = {"epochs": 3, "schedule": "constant", "cache": CacheConfig(directory=tmp_path / "cache"), **OPTIONS[name]}
    run = quick(data, tmp_path / "run", on_nan="rollback", **options)
    assert run.status == "finished"
    assert run.epochs == options["epochs"]
    meta = json.loads((tmp_path / "run" / "tlkit.json").read_text())
    (event,) = meta["settings"]["rollbacks"]
    assert event["rate"] == 0.5
    assert event["to_epoch"] == step // STEPS
    if name != "plateau":
        assert rates[step + 1] == pytest.approx(rates[step] / 2)
    assert all(bool(t.isfinite().all()) for t in load_checkpoint(tmp_path / "run").model.state_dict().values())
    assert tl_kit.evaluate(run.checkpoint, data, split="val").metrics == run.val


def test_a_run_that_never_recovers_keeps_its_best_epoch(
    data: Path, tmp_path: Path, poison: Callable[..., list[float]]
) -> None:
    poison(6, always=True)
    with pytest.raises(TrainingError, match=r"after going back 3 times: .*; the best epoch so far is kept in .*run"):
        quick(data, tmp_path / "run", on_nan="rollback", epochs=4)
    meta = json.loads((tmp_path / "run" / "tlkit.json").read_text())
    assert meta["status"] == "failed"
    assert 1 <= meta["best_epoch"] <= 3
    assert len(meta["settings"]["rollbacks"]) == 3
    assert tl_kit.load(tmp_path / "run").predict(next(data.rglob("*.png")))[0].label is not None


@pytest.mark.parametrize("on_nan", ["stop", "rollback"])
def test_a_run_without_a_good_epoch_leaves_nothing_and_says_so(
    on_nan: str, data: Path, tmp_path: Path, poison: Callable[..., list[float]]
) -> None:
    poison(0, always=True)
    with pytest.raises(TrainingError) as caught:
        quick(data, tmp_path / "run", on_nan=on_nan, epochs=2)
    assert "is kept" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_run_that_went_back_is_resumed_to_the_same_bits(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after it went back; and killed between the last good state and the step that breaks."""
    original = loop.train_step

    def spoiled(task: Task, accelerator: Any, inputs: Any, labels: Any, *, step: int) -> float:
        if step == 4 and task.optimizer.param_groups[-1]["lr"] > 0.06:
            with torch.no_grad():
                next(task.model.parameters()).fill_(float("nan"))
        return original(task, accelerator, inputs, labels, step=step)

    monkeypatch.setattr(loop, "train_step", spoiled)
    options = {"on_nan": "rollback", "epochs": 3, "lr": 0.1, "schedule": "constant", "save": EVERY_STEP}
    copies = Copies(tmp_path / "run")
    with killing(copies):
        quick(data, copies.out, **options)
    whole = copies.out.rename(tmp_path / "whole")
    assert len(json.loads((whole / "tlkit.json").read_text())["settings"]["rollbacks"]) == 1
    for at in (4, 5, 6, 8):
        resume(copies.restore(at))
        assert digest(copies.out) == digest(whole), at


def test_bf16_that_overflows_in_training_gives_way_to_fp32(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stands for a GPU, where training is bf16: a layer's output overflows there, and not in fp32."""
    detect, entered = preparation.detect, []
    monkeypatch.setattr(preparation, "detect", lambda config: replace(detect(config), train_precision="bf16"))
    original = loop.train_step

    def overflowing(task: Task, *args: Any, step: int) -> float:
        def hook(module: object, inputs: object, output: torch.Tensor) -> torch.Tensor:
            low = torch.is_autocast_enabled("cpu")
            entered.append((step, low))
            return output * float("inf") if low and step == 4 else output

        handle = task.model.register_forward_hook(hook)
        try:
            return original(task, *args, step=step)
        finally:
            handle.remove()

    monkeypatch.setattr(loop, "train_step", overflowing)
    listener = Listener()
    result = quick(data, tmp_path / "run", epochs=3, loop=tl_kit.LoopConfig(), reporter=listener)
    assert result.status == "finished"
    assert any("back to the end of epoch 2, in fp32 from here on, at the same rate" in m for m in listener.messages)
    assert [low for step, low in entered] == [True] * 5 + [False] * (len(entered) - 5)


def uneven(root: Path) -> Path:
    """Three classes, two of two images each: whatever is held out of them lacks classes."""
    write_images(root, ("red",), images=6)
    return write_images(root, ("green", "blue"), images=2)


@pytest.mark.parametrize(
    "options",
    [
        {"policy": "head", "epochs": None},
        {"policy": "full"},
        {"policy": "last:2"},
        {"policy": "full", "select": "macro-f1", "balance": "loss"},
        {"policy": "full", "select": "balanced-accuracy", "balance": "sampler"},
        {"policy": "full", "select": "nll"},
    ],
    ids=str,
)
def test_classes_that_a_split_lacks_divide_by_no_zero(options: dict[str, Any], tmp_path: Path) -> None:
    """Warnings are errors in these tests: scikit-learn and NumPy warn where they divide by zero."""
    data = uneven(tmp_path / "data")
    one, two = write_images(tmp_path / "one", ("blue",), images=1, seed=9), write_images(tmp_path / "two", seed=8)
    with np.errstate(all="raise", under="ignore"):
        run = quick(data, tmp_path / "run", **options)
        found = [tl_kit.evaluate(run.checkpoint, data, split=split) for split in ("train", "val", "test", "all")]
        found += [tl_kit.evaluate(run.checkpoint, one, split="all"), tl_kit.evaluate(run.checkpoint, two, split="all")]
    assert run.val == pytest.approx(found[1].metrics, rel=1e-5), "up to rounding: batches of other sizes"
    assert run.test == pytest.approx(found[2].metrics, rel=1e-5)
    supports = [[row["support"] for row in evaluation.per_class.values()] for evaluation in found]
    assert 0 in supports[1] + supports[2], "a class is absent, or this tests nothing"
    assert supports[4] == [1, 0, 0]
    for evaluation in found:
        assert all(np.isfinite(value) for value in evaluation.metrics.values())
        assert all(np.isfinite(value) for scores in evaluation.per_class.values() for value in scores.values())
        assert [sum(row) for row in evaluation.confusion] == [row["support"] for row in evaluation.per_class.values()]


def test_an_ensemble_scored_on_such_splits_divides_by_no_zero(tmp_path: Path) -> None:
    data = uneven(tmp_path / "data")
    runs = [Path(quick(data, tmp_path / str(seed), seed=seed).checkpoint) for seed in range(2)]
    with np.errstate(all="raise", under="ignore"):
        result = tl_kit.ensemble(
            tl_kit.EnsembleConfig(checkpoints=tuple(runs), data=data, out=tmp_path / "both", bootstrap=50)
        )
    json.dumps(result.to_dict(), allow_nan=False)

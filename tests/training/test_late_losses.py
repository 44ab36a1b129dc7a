"""Losses that are read late: none is lost, none that is not finite goes by, and no step waits for its own."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.training.test_loop import Spy, X, Y, a_task, trained
from tl_kit.errors import NonFiniteError
from tl_kit.training import loop
from tl_kit.training.late_losses import LateLosses
from tl_kit.training.loop import fit
from tl_kit.training.task import Callback, FitResult, Progress, Task


def test_each_is_read_so_many_steps_later_and_all_are_counted() -> None:
    progress = Progress()
    losses = LateLosses(progress, lag=2)
    for step in range(5):
        losses.add(step, torch.tensor(float(step + 1)), 10)
        read = max(0, step - 1)
        assert progress.loss == 10 * sum(range(1, read + 1))
        assert losses.last == read or (not read and math.isnan(losses.last))
    losses.read()
    assert progress.loss == 10 * sum(range(1, 6))
    losses.read()
    assert progress.loss == 150, "none is counted twice"


def test_the_first_that_is_not_finite_is_named_by_its_own_step() -> None:
    losses = LateLosses(Progress(), lag=2)
    for step, value in enumerate([1.0, math.nan, math.inf]):
        losses.add(step, torch.tensor(value), 1)
    with pytest.raises(NonFiniteError, match="the loss is nan at step 2:"):
        losses.add(3, torch.tensor(1.0), 1)


def test_training_is_the_same_weight_for_weight_and_shows_the_same_loss() -> None:
    assert torch.equal(trained(a_task(loss_lag=2)), trained(a_task()))
    shown = [fit(a_task(loss_lag=lag), Accelerator(cpu=True)).history for lag in (0, 2, 100)]
    assert [[row["loss"] for row in rows] for rows in shown[1:]] == [[row["loss"] for row in shown[0]]] * 2


class Reads(TorchDispatchMode):
    """Counts numbers that are read from tensors: on a GPU, each waits for all the work that is queued before it."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
def test_a_step_reads_no_number_but_a_loss_that_is_two_steps_old(
    clip_norm: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, inside = Reads(), Counter[int]()
    original = loop.train_step

    def counted(*args: Any, step: int, **options: Any) -> Tensor:
        before = reads.count
        found = original(*args, step=step, **options)
        inside[step] = reads.count - before
        return found

    monkeypatch.setattr(loop, "train_step", counted)
    after: list[int] = []
    task = a_task(loss_lag=2, clip_norm=clip_norm, epochs=1, batch_size=4)
    task.callbacks = [Spy(on_step=lambda step: after.append(reads.count))]
    with reads:
        fit(task, Accelerator(cpu=True))
    assert set(inside.values()) == {0}
    assert after == [0, 0, 1, 2, 3, 4, 5, 8], "the last step of an epoch reads what is left"


class Keeps(Callback):
    """Keeps the weights at one step."""

    def __init__(self, at: int, task: Task) -> None:
        self.at, self.task = at, task
        self.kept: list[Tensor] = []

    def keeps(self, step: int) -> bool:
        return step == self.at

    def on_step(self, step: int) -> None:
        if self.keeps(step):
            self.kept.append(self.task.model.weight.detach().clone())


@pytest.mark.parametrize("at", [2, 3])
def test_weights_after_a_loss_that_is_not_finite_are_not_kept(at: int) -> None:
    def batch(indices: Any, epoch: int) -> tuple[Tensor, Tensor]:
        batches.append(1)
        bad = math.nan if len(batches) == 2 else 1.0
        return X[torch.from_numpy(indices)] * bad, Y[torch.from_numpy(indices)]

    batches: list[int] = []
    task = a_task(loss_lag=2, batch=batch)
    keeping = Keeps(at, task)
    task.callbacks = [keeping]
    with pytest.raises(NonFiniteError, match="at step 2:"):
        fit(task, Accelerator(cpu=True))
    assert keeping.kept == []


def test_a_state_that_is_saved_has_all_losses_in_it() -> None:
    sums: list[tuple[float, float]] = []

    def resumable(result: FitResult) -> None:
        if result.progress.steps == 3:
            before = result.progress.loss
            result.read_losses()
            sums.append((before, result.progress.loss))

    task = a_task(loss_lag=2, epochs=1)
    task.callbacks = [Spy(on_resumable=resumable)]
    fit(task, Accelerator(cpu=True))
    expected = a_task(epochs=1)
    whole: list[float] = []
    expected.callbacks = [Spy(on_resumable=lambda result: whole.append(result.progress.loss))]
    fit(expected, Accelerator(cpu=True))
    assert sums == [(whole[0], whole[2])]


def test_a_saved_state_waits_for_the_losses(tmp_path: Path) -> None:
    """The saver of a run reads them itself: what is in its file is the sum of all steps before it."""
    from tl_kit.finetuning.saved_state import StateSaver

    seen: list[str] = []
    result = FitResult()
    result.unread = lambda: seen.append("read")
    saver = object.__new__(StateSaver)
    saver.run, saver.parts, saver.settings = _RunOf(tmp_path), {}, {}
    saver.states = _States(seen)
    saver._warned = False
    saver._save(result)
    assert seen == ["read", "saved"]


class _States:
    def __init__(self, seen: list[str]) -> None:
        self.seen = seen

    def save(self, tree: object) -> None:
        self.seen.append("saved")


class _RunOf:
    """As much of a run as the saver reads."""

    def __init__(self, folder: Path) -> None:
        from tl_kit.config import FinetuneConfig

        self.folder, self.config = folder, FinetuneConfig(model="test_resnet", data=folder)
        self.manifest = self

    def content_hash(self) -> str:
        return ""

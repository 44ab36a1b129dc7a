"""Back to the last good state: the weights and the optimizer's state are those of then, and the rate is half."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional

from tests.helpers import Listener
from tests.training.test_loop import Spy, X, Y, a_task
from tl_kit.config import RollbackConfig
from tl_kit.errors import NonFiniteError
from tl_kit.storage.saved_states import read_state, write_state
from tl_kit.training.batch_order import even_batches
from tl_kit.training.loop import fit
from tl_kit.training.rollback import Rollback, fit_again
from tl_kit.training.stateful import OptimizerState, RandomState, TensorState
from tl_kit.training.task import FitResult, Loss, Task


def a_fit(
    broken: Callable[[int], bool], *, momentum: float = 0.9, **options: object
) -> tuple[Task, Rollback, list[float]]:
    """A task whose loss is NaN in the n-th training step, from 0, where ``broken(n)``; and the rates of its steps."""
    task = a_task()
    optimizer = torch.optim.SGD(task.model.parameters(), lr=0.5, momentum=momentum)
    optimizer.param_groups[0]["initial_lr"] = 0.5  # as a run's optimizer has it
    parts = {
        "model": TensorState(task.model, set(task.model.state_dict())),
        "optimizer": OptimizerState(optimizer),
        "random": RandomState(torch.device("cpu")),
    }
    settings: dict[str, Any] = {"halve": True, **options}
    rollback = Rollback(parts, **settings)
    rates: list[float] = []

    def objective(logits: Tensor, labels: Tensor) -> Tensor:
        rates.append(optimizer.param_groups[0]["lr"])
        loss = functional.cross_entropy(logits, labels)
        return loss * math.nan if broken(len(rates) - 1) else loss

    schedule, loss = rollback.scaled(task.schedule), Loss(objective=objective)
    task = replace(task, optimizer=optimizer, loss=loss, schedule=schedule, parts=parts, callbacks=[rollback])
    return task, rollback, rates


def by_hand(epochs: dict[int, float], momentum: float = 0.9) -> Tensor:
    """SGD with momentum written out: each epoch at its rate."""
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    velocity = [torch.zeros_like(p) for p in model.parameters()]
    for epoch, rate in epochs.items():
        for indices in even_batches(30, 8, seed=0, epoch=epoch):
            model.zero_grad()
            functional.cross_entropy(model(X[indices]), Y[indices]).backward()
            with torch.no_grad():
                for v, p in zip(velocity, model.parameters(), strict=True):
                    assert p.grad is not None
                    v.mul_(momentum).add_(p.grad)
                    p -= rate * v
    return model.weight.detach()


def test_an_epoch_that_breaks_is_trained_again_from_its_start_at_half_the_rate() -> None:
    """The result is that of a run whose rate was half from that epoch on: nothing of the broken steps is left."""
    task, rollback, rates = a_fit(lambda n: n == 6)  # the third step of the second epoch
    notes = Listener()
    result = fit_again(task, Accelerator(cpu=True), rollback=rollback, start=FitResult(), reporter=notes)
    assert rates == [0.5] * 7 + [0.25] * 8
    assert result.epochs == 3
    assert [row["epoch"] for row in result.history] == [1, 2, 3]
    torch.testing.assert_close(task.model.weight.detach(), by_hand({0: 0.5, 1: 0.25, 2: 0.25}), rtol=0, atol=1e-7)
    assert notes.messages == ["the loss is nan at step 7: back to the end of epoch 1, at 0.5 of the rate from here on"]
    assert rollback.events == [
        {"reason": "the loss is nan at step 7", "to_epoch": 1, "rate": 0.5, "precision": None},
    ]


def test_before_the_first_epoch_is_over_it_goes_back_to_the_start() -> None:
    task, rollback, rates = a_fit(lambda n: n in (2, 5))
    fit_again(task, Accelerator(cpu=True), rollback=rollback, start=FitResult())
    assert rates == [0.5] * 3 + [0.25] * 3 + [0.125] * 12
    torch.testing.assert_close(task.model.weight.detach(), by_hand(dict.fromkeys(range(3), 0.125)), rtol=0, atol=1e-7)
    assert [event["to_epoch"] for event in rollback.events] == [0, 0]


def test_what_never_gets_better_ends_after_so_many_times() -> None:
    task, rollback, rates = a_fit(lambda n: n >= 4, config=RollbackConfig(most=2, factor=0.1))
    with pytest.raises(NonFiniteError, match=r"at step 5, after going back 2 times: try a lower --lr$"):
        fit_again(task, Accelerator(cpu=True), rollback=rollback, start=FitResult())
    assert rates == pytest.approx([0.5] * 5 + [0.05, 0.005])


def test_without_it_the_first_one_ends_the_fit() -> None:
    task, _, rates = a_fit(lambda n: n == 6)
    with pytest.raises(NonFiniteError, match=r"step 7.*--on-nan rollback"):
        fit_again(task, Accelerator(cpu=True), rollback=None, start=FitResult())
    assert len(rates) == 7


def test_weights_spoilt_by_an_epochs_last_step_are_neither_kept_nor_scored() -> None:
    """The loss of every step is finite, and the last update writes an infinity."""
    kept: list[int] = []
    scored: list[int] = []
    task = a_task(
        evaluate=lambda: scored.append(1) or {"accuracy": float(len(scored)), "nll": 1.0},
    )

    def spoil(step: int) -> None:
        if step == 8:
            with torch.no_grad():
                task.model.weight[0, 0] = math.inf

    with pytest.raises(NonFiniteError, match="the weights weight are not finite at the end of an epoch"):
        fit(
            replace(task, callbacks=[Spy(on_step=spoil, on_epoch=lambda r: kept.append(r.best_epoch))]),
            Accelerator(cpu=True),
        )
    assert (kept, len(scored)) == ([1], 1)


def test_a_buffer_that_is_not_finite_counts_as_well() -> None:
    model = nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2))
    task = a_task(model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))

    def spoil(step: int) -> None:
        model[1].running_var.fill_(math.nan)

    with pytest.raises(NonFiniteError, match=r"1\.running_var"):
        fit(replace(task, callbacks=[Spy(on_step=spoil)]), Accelerator(cpu=True))


def test_low_precision_is_given_up_first_and_the_rate_stays() -> None:
    state = {"low": True}

    def widen() -> bool:
        was, state["low"] = state["low"], False
        return was

    task, rollback, rates = a_fit(lambda n: state["low"] and n == 5, halve=False, widen=widen)
    notes = Listener()
    fit_again(task, Accelerator(cpu=True), rollback=rollback, start=FitResult(), reporter=notes)
    assert rates == [0.5] * (6 + 8)
    assert notes.messages == [
        "the loss is nan at step 6: back to the end of epoch 1, in fp32 from here on, at the same rate"
    ]
    assert rollback.events[0]["precision"] == "fp32"
    torch.testing.assert_close(task.model.weight.detach(), by_hand(dict.fromkeys(range(3), 0.5)), rtol=0, atol=1e-7)
    state["low"] = False
    task, rollback, _ = a_fit(lambda n: n == 5, halve=False, widen=widen)
    with pytest.raises(NonFiniteError, match="step 6"):
        fit_again(task, Accelerator(cpu=True), rollback=rollback, start=FitResult())


def test_what_it_holds_can_be_saved_and_taken_up(tmp_path: Path) -> None:
    task, rollback, _ = a_fit(lambda n: n == 6)
    fit_again(task, Accelerator(cpu=True), rollback=rollback, start=FitResult())
    write_state(tmp_path, "a", rollback.state())
    saved = read_state(tmp_path, "a")
    _, other, _ = a_fit(lambda n: False)
    other.load_state(copy.deepcopy(saved))
    assert (other.scale, other.events) == (0.5, rollback.events)
    again = other.answer(NonFiniteError("the loss is nan at step 13: x"), Listener())
    assert (again.epochs, len(again.history), other.scale) == (3, 3, 0.25)
    torch.testing.assert_close(other.parts["model"].state(), task.model.state_dict())

"""The loop: batches in order also when one is prepared ahead, hooks where they are promised."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional

from tl_kit.optimization.schedules import set_lr
from tl_kit.training.loop import fit
from tl_kit.training.task import Task

generator = torch.Generator().manual_seed(0)
X = torch.randn(30, 4, generator=generator)
Y = (X[:, 0] > 0).long()


def a_task(**changes: object) -> Task:
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    task = Task(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.5),
        images=30,
        epochs=3,
        batch_size=8,
        seed=0,
        patience=3,
        clip_norm=0.0,
        batch=lambda indices, epoch: (X[torch.from_numpy(indices)], Y[torch.from_numpy(indices)]),
        evaluate=lambda: None,
        multiplier=lambda step, history: 1.0,
        set_rate=set_lr,
        set_mode=lambda size: None,
        on_best=lambda epoch, scores: None,
        on_epoch=lambda row: None,
    )
    return replace(task, **changes)


def trained(task: Task) -> Tensor:
    fit(task, Accelerator(cpu=True))
    weight = task.model.weight
    assert isinstance(weight, Tensor)
    return weight.detach().clone()


def test_it_is_gradient_descent_written_out() -> None:
    from tl_kit.training.batch_order import even_batches

    torch.manual_seed(0)
    expected = nn.Linear(4, 2)
    for epoch in range(3):
        for indices in even_batches(30, 8, seed=0, epoch=epoch):
            expected.zero_grad()
            functional.cross_entropy(expected(X[indices]), Y[indices]).backward()
            with torch.no_grad():
                for parameter in expected.parameters():
                    assert parameter.grad is not None
                    parameter -= 0.5 * parameter.grad
    torch.testing.assert_close(trained(a_task()), expected.weight.detach())


def test_prefetching_changes_nothing_but_the_thread() -> None:
    threads: list[str] = []
    order: list[list[int]] = []

    def batch(indices: np.ndarray, epoch: int) -> tuple[Tensor, Tensor]:
        threads.append(threading.current_thread().name)
        order.append(indices.tolist())
        return X[torch.from_numpy(indices)], Y[torch.from_numpy(indices)]

    inline = trained(a_task(batch=batch))
    seen, order[:] = list(order), []
    assert set(threads) == {threading.current_thread().name}
    threads.clear()
    ahead = trained(a_task(batch=batch, prefetch=True))
    assert torch.equal(inline, ahead)
    assert order == seen
    assert threading.current_thread().name not in threads


def test_an_error_in_the_thread_is_raised() -> None:
    def batch(indices: np.ndarray, epoch: int) -> tuple[Tensor, Tensor]:
        raise ValueError("a file has gone")

    with pytest.raises(ValueError, match="a file has gone"):
        fit(a_task(batch=batch, prefetch=True), Accelerator(cpu=True))


def test_the_penalty_is_in_the_gradient_and_not_in_the_loss_that_is_shown() -> None:
    plain, pulled = a_task(), a_task()
    pulled = replace(pulled, penalty=lambda: 0.3 / 2 * pulled.model.weight.square().sum())
    shown = [
        fit(replace(task, epochs=1, batch_size=30), Accelerator(cpu=True)).history[0]["loss"]
        for task in (plain, pulled)
    ]
    assert shown[0] == shown[1], "the first loss comes before the first update"
    torch.manual_seed(0)
    start = nn.Linear(4, 2).weight.detach()
    difference = plain.model.weight.detach() - pulled.model.weight.detach()
    torch.testing.assert_close(difference, 0.5 * 0.3 * start)


def test_averaged_weights_are_in_place_for_evaluation_and_for_keeping_alone() -> None:
    state = {"inside": False}
    seen: list[tuple[str, bool]] = []

    @contextmanager
    def averaged() -> Iterator[None]:
        state["inside"] = True
        yield
        state["inside"] = False

    steps: list[int] = []
    task = a_task(
        averaged=averaged,
        after_step=steps.append,
        evaluate=lambda: seen.append(("evaluate", state["inside"])) or {"accuracy": float(len(seen)), "nll": 1.0},
        on_best=lambda epoch, scores: seen.append(("best", state["inside"])),
        on_epoch=lambda row: seen.append(("epoch", state["inside"])),
    )
    fit(task, Accelerator(cpu=True))
    assert seen == [("evaluate", True), ("best", True), ("epoch", False)] * 3
    assert steps == list(range(1, 13)), "4 steps an epoch, counted from 1"


def test_the_forward_pass_runs_in_the_tasks_precision() -> None:
    entered: list[str] = []

    @contextmanager
    def precision() -> Iterator[None]:
        entered.append("in")
        yield

    fit(a_task(precision=precision, epochs=1), Accelerator(cpu=True))
    assert entered == ["in"] * 4


def test_the_order_given_is_the_order_trained_in() -> None:
    seen: list[list[int]] = []

    def batch(indices: np.ndarray, epoch: int) -> tuple[Tensor, Tensor]:
        seen.append(indices.tolist())
        chosen = torch.from_numpy(indices % 30)
        return X[chosen], Y[chosen]

    given = [[np.arange(8) + epoch, np.arange(30, 37)] for epoch in range(3)]
    fit(a_task(batch=batch, order=lambda epoch: given[epoch]), Accelerator(cpu=True))
    assert seen == [indices.tolist() for epoch in given for indices in epoch]


SCORES = [
    {"accuracy": 0.8, "balanced_accuracy": 0.5, "macro_f1": 0.4, "nll": 0.9},
    {"accuracy": 0.7, "balanced_accuracy": 0.7, "macro_f1": 0.5, "nll": 0.8},
    {"accuracy": 0.7, "balanced_accuracy": 0.7, "macro_f1": 0.5, "nll": 0.7},
    {"accuracy": 0.6, "balanced_accuracy": 0.6, "macro_f1": 0.6, "nll": 0.8},
    {"accuracy": 0.5, "balanced_accuracy": 0.5, "macro_f1": 0.5, "nll": 0.6},
]


@pytest.mark.parametrize(("select", "best"), [("accuracy", 1), ("balanced_accuracy", 3), ("macro_f1", 4), ("nll", 5)])
def test_the_best_epoch_is_that_of_the_figure_selected_and_at_equal_figures_of_the_lower_nll(
    select: str, best: int
) -> None:
    coming = iter(SCORES)
    result = fit(a_task(select=select, epochs=5, patience=9, evaluate=lambda: next(coming)), Accelerator(cpu=True))
    assert result.best_epoch == best
    assert result.best == SCORES[best - 1]

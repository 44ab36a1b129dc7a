"""The loop: batches in order also when one is prepared ahead, hooks where they are promised."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional

from tl_kit import stopping
from tl_kit.training.batch_order import even_batches
from tl_kit.training.loop import fit
from tl_kit.training.task import Callback, FitResult, Loss, Task

generator = torch.Generator().manual_seed(0)
X = torch.randn(30, 4, generator=generator)
Y = (X[:, 0] > 0).long()


class Spy(Callback):
    """Calls these functions at these events."""

    def __init__(self, **events: Callable[..., object]) -> None:
        vars(self).update(events)


def a_task(*, batch_size: int = 8, **changes: object) -> Task:
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    task = Task(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.5),
        order=lambda epoch: even_batches(30, batch_size, seed=0, epoch=epoch),
        epochs=3,
        patience=3,
        clip_norm=0.0,
        batch=lambda indices, epoch: (X[torch.from_numpy(indices)], Y[torch.from_numpy(indices)]),
        evaluate=lambda: None,
        schedule=lambda step, history: 1.0,
        set_mode=lambda size: None,
    )
    return replace(task, **changes)


def trained(task: Task) -> Tensor:
    fit(task, Accelerator(cpu=True))
    weight = task.model.weight
    assert isinstance(weight, Tensor)
    return weight.detach().clone()


def test_it_is_gradient_descent_written_out() -> None:
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


def test_an_epochs_first_batches_are_under_way_before_the_one_before_is_validated() -> None:
    made: list[int] = []
    ready, seen = threading.Event(), list[bool]()

    def batch(indices: np.ndarray, epoch: int) -> tuple[Tensor, Tensor]:
        made.append(epoch)
        if epoch == 1:
            ready.set()
        return X[torch.from_numpy(indices)], Y[torch.from_numpy(indices)]

    def evaluate() -> None:
        seen.append(ready.wait(5))

    fit(a_task(batch=batch, evaluate=evaluate, prefetch=True), Accelerator(cpu=True))
    assert seen[0], "the first validation finds batches of the second epoch"
    assert made == [0] * 4 + [1] * 4 + [2] * 4


def test_batches_that_are_under_way_are_given_up_where_others_are_wanted() -> None:
    """A later phase has a source of its own; and a fit that ends early leaves no thread."""
    used: list[str] = []

    def source(name: str) -> Callable[[np.ndarray, int], tuple[Tensor, Tensor]]:
        def batch(indices: np.ndarray, epoch: int) -> tuple[Tensor, Tensor]:
            used.append(f"{name}{epoch}")
            return X[torch.from_numpy(indices)], Y[torch.from_numpy(indices)]

        return batch

    task = a_task(batch=source("a"), prefetch=True)
    second = source("b")

    def phase(task: Task, epoch: int) -> None:
        if epoch == 1:
            task.batch = second

    task.callbacks = [Spy(on_phase=phase)]
    fit(task, Accelerator(cpu=True))
    assert used.count("a0") == 4
    assert used.count("a1") <= 2
    assert [used.count(name) for name in ("b1", "b2")] == [4, 4]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("tlkit-prefetch")]


def test_an_error_in_the_thread_is_raised() -> None:
    def batch(indices: np.ndarray, epoch: int) -> tuple[Tensor, Tensor]:
        raise ValueError("a file has gone")

    with pytest.raises(ValueError, match="a file has gone"):
        fit(a_task(batch=batch, prefetch=True), Accelerator(cpu=True))


def test_the_penalty_is_in_the_gradient_and_not_in_the_loss_that_is_shown() -> None:
    plain, pulled = a_task(epochs=1, batch_size=30), a_task(epochs=1, batch_size=30)
    pulled.loss = Loss(penalty=lambda: 0.3 / 2 * pulled.model.weight.square().sum())
    shown = [fit(task, Accelerator(cpu=True)).history[0]["loss"] for task in (plain, pulled)]
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
        callbacks=[
            Spy(
                on_step=steps.append,
                on_epoch=lambda result: seen.append(("epoch", state["inside"])),
                on_resumable=lambda result: seen.append(("resumable", state["inside"])),
            )
        ],
        evaluate=lambda: seen.append(("evaluate", state["inside"])) or {"accuracy": float(len(seen)), "nll": 1.0},
    )
    fit(task, Accelerator(cpu=True))
    steps_of_an_epoch, end = [("resumable", False)] * 4, [("evaluate", True), ("epoch", True), ("resumable", False)]
    assert seen == [*steps_of_an_epoch, *end] * 3
    assert steps == list(range(1, 13)), "4 steps an epoch, counted from 1"


def test_events_come_in_the_order_that_the_docstring_draws_and_one_callback_after_the_other() -> None:
    seen: list[tuple[str, str, object]] = []

    def spy(name: str) -> Spy:
        return Spy(
            on_phase=lambda task, epoch: seen.append((name, "phase", epoch)),
            on_step=lambda step: seen.append((name, "step", step)),
            on_epoch=lambda result: seen.append(
                (name, "epoch", (result.epochs, result.best_epoch, result.progress.steps))
            ),
            on_resumable=lambda result: seen.append((name, "resumable", (result.epochs, result.progress.steps))),
        )

    scores = iter([0.5, 0.4])
    task = a_task(
        epochs=2,
        batch_size=15,
        evaluate=lambda: {"accuracy": next(scores), "nll": 1.0},
        callbacks=[spy("first"), spy("second")],
    )
    fit(task, Accelerator(cpu=True))
    expected = []
    for epoch in (0, 1):
        events: list[tuple[str, object]] = [("phase", epoch)]
        for step in (1, 2):
            events += [("step", 2 * epoch + step), ("resumable", (epoch, step))]
        events += [("epoch", (epoch + 1, 1, 0)), ("resumable", (epoch + 1, 0))]
        expected += [(name, *event) for event in events for name in ("first", "second")]
    assert seen == expected


def test_what_a_phase_changes_of_the_task_is_trained_from_there_on() -> None:
    trained_on: list[int] = []

    def on_phase(task: Task, epoch: int) -> None:
        if epoch == 1:
            batch = task.batch
            task.batch = lambda indices, epoch: (trained_on.append(epoch), batch(indices, epoch))[1]

    fit(a_task(callbacks=[Spy(on_phase=on_phase)]), Accelerator(cpu=True))
    assert trained_on == [1] * 4 + [2] * 4


def test_a_request_to_stop_in_validation_is_followed_by_a_resumable_event_at_the_last_step() -> None:
    """Not within the averaged weights, and before the request ends the fit."""
    seen: list[tuple[int, int]] = []

    def stop() -> None:
        stopping.request(stopping.StoppedError("now", code=stopping.TERMINATED))

    def note(result: FitResult) -> None:
        seen.append((result.epochs, result.progress.steps))

    with pytest.raises(stopping.StoppedError, match="now"):
        fit(a_task(evaluate=stop, callbacks=[Spy(on_resumable=note)]), Accelerator(cpu=True))
    assert seen == [(0, 1), (0, 2), (0, 3), (0, 4), (0, 4)]


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


@pytest.mark.parametrize(("epochs", "patience", "kept"), [(5, 9, 5), (3, 9, 3), (5, 2, 1)])
def test_the_last_epoch_is_kept_and_of_a_run_that_stops_early_the_best(epochs: int, patience: int, kept: int) -> None:
    """The first of these epochs is the most accurate; two later ones without a better one are a patience of two."""
    coming = iter(SCORES)
    task = a_task(keep_last=True, epochs=epochs, patience=patience, evaluate=lambda: next(coming))
    result = fit(task, Accelerator(cpu=True))
    assert (result.best_epoch, result.best) == (kept, SCORES[kept - 1])
    assert result.epochs == (3 if patience == 2 else epochs)

"""The training loop, and where in it the callbacks of a task hear each event.

    fit
        for each epoch:
            on_phase(task, epoch)            more may train from here on
            run_epoch
                for each batch:
                    train_step               rate, forward pass, loss, backward pass, update
                    keeps(step)              where one is True, losses that a GPU still computes are read first
                    on_step(step)
                    on_resumable(result)
            validation                       of the averaged weights, where the task has them
            on_epoch(result)                 they are still in the model
            on_resumable(result)

Requests to stop (``tl_kit.stopping``) wait for ``on_resumable`` and are raised after it. One that comes during
``on_phase`` or validation is raised there, and ``on_resumable`` follows at once: nothing has changed since the last
step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager

import torch
from accelerate import Accelerator
from torch import Tensor

from tl_kit import stopping
from tl_kit.errors import NonFiniteError
from tl_kit.machine.forks import unforked
from tl_kit.optimization.schedules import set_lr
from tl_kit.reporting import SILENT, Reporter, tell
from tl_kit.training.batches_ahead import BatchesAhead
from tl_kit.training.late_losses import ADVICE, LateLosses
from tl_kit.training.microbatches import settle_parts, step_gradient
from tl_kit.training.task import FitResult, Indices, Progress, Task

__all__ = ["begin_phase", "better", "fit", "run_epoch", "share_of", "train_step"]


def fit(
    task: Task, accelerator: Accelerator, *, reporter: Reporter = SILENT, start: FitResult | None = None
) -> FitResult:
    """Train until the epochs are over, validation has not improved for ``patience`` epochs, or Ctrl-C.

    ``start`` is where a fit stood that is taken up again; or it says how good the weights are before the first epoch,
    where they are worth keeping.
    Raises NonFiniteError at the first loss that is not finite, and at the end of an epoch for weights that are not.
    Whatever ends the fit, callbacks have seen the best epoch so far.
    """
    result = start or FitResult()
    try:
        with stopping.postponed(), closing(BatchesAhead(task)) as ahead:
            for epoch in range(result.epochs, task.epochs):
                if epoch - result.best_epoch >= task.patience:
                    break
                with _resumable_if_stopped(task, result), stopping.allowed():
                    begin_phase(task, epoch)
                row = run_epoch(task, accelerator, result, ahead, reporter=reporter)
                _end_epoch(task, accelerator, result, row)
                reporter.epoch(result.history[-1])
                _resumable(task, result)
    except KeyboardInterrupt:
        result.interrupted = True
    return result


def begin_phase(task: Task, epoch: int) -> None:
    """Tell the callbacks that an epoch begins."""
    for callback in task.callbacks:
        callback.on_phase(task, epoch)


def _end_epoch(task: Task, accelerator: Accelerator, result: FitResult, row: dict[str, float]) -> None:
    """Validate, and note the row; callbacks come before anything is shown: what the user has seen is kept."""
    _check_weights(task, accelerator)
    with _resumable_if_stopped(task, result), task.averaged():
        with stopping.allowed():
            scores = task.evaluate()
        epoch = result.epochs = result.epochs + 1
        result.progress = Progress()
        row |= {f"val_{name}": value for name, value in (scores or {}).items()}
        result.history.append({"epoch": float(epoch), **row})
        last = task.keep_last and epoch == task.epochs
        if last or scores is None or result.best is None or better(scores, result.best, task.select):
            result.best_epoch, result.best = epoch, scores
        for callback in task.callbacks:
            callback.on_epoch(result)


@contextmanager
def _resumable_if_stopped(task: Task, result: FitResult) -> Iterator[None]:
    """Tell the callbacks of a request that is raised inside, where nothing has changed since the last step."""
    try:
        yield
    except BaseException as error:
        if stopping.put_off(error):
            _resumable(task, result)
        raise


def _resumable(task: Task, result: FitResult) -> None:
    for callback in task.callbacks:
        callback.on_resumable(result)
    stopping.answer()


def run_epoch(
    task: Task, accelerator: Accelerator, result: FitResult, ahead: BatchesAhead, *, reporter: Reporter = SILENT
) -> dict[str, float]:
    """Train the rest of one pass over the training images; ``result.progress`` follows step by step.

    Returns the pass's mean loss, last rate, images a second and the data-wait share.
    """
    epoch, done = result.epochs, result.progress
    history = [row["val_nll"] for row in result.history if "val_nll" in row]
    batches, shares = _batches(task, accelerator, epoch)
    images = sum(map(len, batches))
    task.set_mode(min(map(len, shares)))
    reporter.start(f"epoch {epoch + 1}/{task.epochs}", images)
    if done.steps:
        reporter.advance(sum(map(len, batches[: done.steps])))
    losses = LateLosses(done, lag=task.loss_lag)
    result.unread = losses.read
    prepared = ahead.of(shares[done.steps :], epoch)
    for indices in batches[done.steps :]:
        started = time.perf_counter()
        inputs, labels = next(prepared)
        done.waited += time.perf_counter() - started
        settle_parts(task, accelerator, inputs, labels)
        step = epoch * len(batches) + done.steps
        set_lr(task.optimizer, task.schedule(step, history))
        losses.add(step, train_step(task, accelerator, inputs, labels, step=step), len(indices))
        tell(reporter)
        _after_step(task, losses, step + 1, last=done.steps + 1 == len(batches))
        done.steps += 1
        done.seconds += time.perf_counter() - started
        shown = {} if math.isnan(losses.last) else {"loss": losses.last}
        reporter.advance(len(indices), **shown, data_wait=done.waited / done.seconds)
        _resumable(task, result)
    if epoch + 1 < task.epochs:
        ahead.begin(_batches(task, accelerator, epoch + 1)[1], epoch + 1)
    return {
        "loss": done.loss / images,
        "lr": max(group["lr"] for group in task.optimizer.param_groups),
        "images_per_second": images / done.seconds,
        "data_wait": done.waited / done.seconds,
    }


def _after_step(task: Task, losses: LateLosses, step: int, *, last: bool) -> None:
    """Callbacks hear of an update; losses are read before one that keeps weights, and at the end of an epoch."""
    if last or any(callback.keeps(step) for callback in task.callbacks):
        losses.read()
    for callback in task.callbacks:
        callback.on_step(step)


def _batches(task: Task, accelerator: Accelerator, epoch: int) -> tuple[list[Indices], list[Indices]]:
    """The batches of an epoch, and this process's share of each."""
    batches = task.order(epoch)
    return batches, [share_of(indices, accelerator) for indices in batches]


@unforked()
def train_step(task: Task, accelerator: Accelerator, inputs: Tensor, labels: Tensor, *, step: int) -> Tensor:
    """Forward, loss, backward, update; returns the loss (). Raises NonFiniteError if it is not finite.

    A task that reads its losses later does not raise that here. Raises ResourceError where memory runs out, however few
    images are taken at once (``training.microbatches``).
    """
    value = step_gradient(task, accelerator, inputs, labels, step=step)
    if task.clip_norm > 0:
        accelerator.clip_grad_norm_(_trainable(task.optimizer), task.clip_norm)
    task.optimizer.step()
    task.optimizer.zero_grad(set_to_none=True)
    return value


def _check_weights(task: Task, accelerator: Accelerator) -> None:
    """Raises NonFiniteError, in all processes, where one's parameters or buffers are not finite.

    The last step of an epoch may spoil them after a finite loss; one that is kept as the best would be no model.
    """
    tensors = {n: t for n, t in task.model.state_dict().items() if t.is_floating_point()}
    good = torch.stack([torch.isfinite(tensor).all() for tensor in tensors.values()])
    if float(accelerator.reduce(good.all().float(), reduction="mean")) == 1.0:
        return
    broken = next((n for n, fine in zip(tensors, good.tolist(), strict=True) if not fine), "of another process")
    raise NonFiniteError(f"the weights {broken} are not finite at the end of an epoch: {ADVICE}")


def share_of(indices: Indices, accelerator: Accelerator) -> Indices:
    """This process's part of a batch; never empty, so that all processes take the same steps."""
    part: Indices = indices[accelerator.process_index :: accelerator.num_processes]
    return part if len(part) else indices[:1]


def _trainable(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def better(scores: Mapping[str, float], best: Mapping[str, float], select: str) -> bool:
    """A higher ``select`` (lower for ``nll``); where equal, a lower NLL."""
    if select == "nll":
        return scores["nll"] < best["nll"]
    return (scores[select], -scores["nll"]) > (best[select], -best["nll"])

"""The training loop: fit -> run_epoch -> train_step. Files, names and policies reach it as callables."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from torch import Tensor

from tl_kit import stopping
from tl_kit.errors import NonFiniteError
from tl_kit.machine.forks import unforked
from tl_kit.reporting import SILENT, Reporter, tell
from tl_kit.training.batch_order import even_batches
from tl_kit.training.microbatches import ADVICE, step_gradient
from tl_kit.training.task import FitResult, Indices, Progress, Task

__all__ = ["better", "epoch_batches", "fit", "run_epoch", "share_of", "train_step"]


def fit(
    task: Task, accelerator: Accelerator, *, reporter: Reporter = SILENT, start: FitResult | None = None
) -> FitResult:
    """Train until the epochs are over, validation has not improved for ``patience`` epochs, or Ctrl-C.

    ``start`` is where a fit stood that is taken up again; or it says how good the weights are before the first epoch,
    where they are worth keeping. Requests to stop (``tl_kit.stopping``) wait for the end of a step.
    Raises NonFiniteError at the first loss that is not finite, and at the end of an epoch for weights that are not.
    Whatever ends the fit, the best state so far has been handed to ``on_best``.
    """
    result = start or FitResult()
    phase = task.phase
    try:
        with stopping.postponed():
            for epoch in range(result.epochs, task.epochs):
                if epoch - result.best_epoch >= task.patience:
                    break
                with _saved_if_stopped(task, result), stopping.allowed():
                    task = phase(epoch) if phase is not None else task
                row = run_epoch(task, accelerator, result, reporter=reporter)
                _end_epoch(task, accelerator, result, row)
                reporter.epoch(result.history[-1])
                _step_done(task, result)
    except KeyboardInterrupt:
        result.interrupted = True
    return result


def _end_epoch(task: Task, accelerator: Accelerator, result: FitResult, row: dict[str, float]) -> None:
    """Validate, keep the weights if they are the best so far, and note the row."""
    _check_weights(task, accelerator)
    with _saved_if_stopped(task, result), task.averaged():
        with stopping.allowed():
            scores = task.evaluate()
        epoch = result.epochs = result.epochs + 1
        result.progress = Progress()
        row |= {f"val_{name}": value for name, value in (scores or {}).items()}
        result.history.append({"epoch": float(epoch), **row})
        if scores is None or result.best is None or better(scores, result.best, task.select):
            task.on_best(epoch, scores)  # before anything is shown: what the user has seen is kept
            result.best_epoch, result.best = epoch, scores
    task.on_epoch(result.history[-1])


@contextmanager
def _saved_if_stopped(task: Task, result: FitResult) -> Iterator[None]:
    """A request that is raised inside, where nothing has changed since the last step, finds the fit saved."""
    try:
        yield
    except BaseException as error:
        if stopping.put_off(error):
            _step_done(task, result)
        raise


def _step_done(task: Task, result: FitResult) -> None:
    if task.on_step is not None:
        task.on_step(result)
    stopping.answer()


def run_epoch(
    task: Task, accelerator: Accelerator, result: FitResult, *, reporter: Reporter = SILENT
) -> dict[str, float]:
    """What is left of one pass over the training images, noted in ``result.progress`` step by step.

    Returns the pass's mean loss, last rate, images a second and the data-wait share.
    """
    epoch, done = result.epochs, result.progress
    history = [row["val_nll"] for row in result.history if "val_nll" in row]
    batches = epoch_batches(task, epoch)
    shares = [share_of(indices, accelerator) for indices in batches]
    task.set_mode(min(map(len, shares)))
    reporter.start(f"epoch {epoch + 1}/{task.epochs}", task.images)
    if done.steps:
        reporter.advance(sum(map(len, batches[: done.steps])))
    prepared = _prepared(task, shares[done.steps :], epoch)
    for indices in batches[done.steps :]:
        started = time.perf_counter()
        inputs, labels = next(prepared)
        done.waited += time.perf_counter() - started
        step = epoch * len(batches) + done.steps
        task.set_rate(task.optimizer, task.multiplier(step, history))
        loss = train_step(task, accelerator, inputs, labels, step=step)
        tell(reporter)
        if task.after_step is not None:
            task.after_step(step + 1)
        done.steps += 1
        done.loss += loss * len(indices)
        done.seconds += time.perf_counter() - started
        reporter.advance(len(indices), loss=loss, data_wait=done.waited / done.seconds)
        _step_done(task, result)
    return {
        "loss": done.loss / task.images,
        "lr": max(group["lr"] for group in task.optimizer.param_groups),
        "images_per_second": task.images / done.seconds,
        "data_wait": done.waited / done.seconds,
    }


def epoch_batches(task: Task, epoch: int) -> list[Indices]:
    """The indices of each batch of an epoch."""
    if task.order is not None:
        return task.order(epoch)
    return even_batches(task.images, task.batch_size, seed=task.seed, epoch=epoch)


def _prepared(task: Task, shares: Sequence[Indices], epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of an epoch, in order; the next one already under way if the task says so."""
    if not task.prefetch:
        yield from (task.batch(indices, epoch) for indices in shares)
        return
    if not shares:
        return
    with ThreadPoolExecutor(max_workers=1) as pool:
        coming = pool.submit(task.batch, shares[0], epoch)
        for following in shares[1:]:
            ready, coming = coming.result(), pool.submit(task.batch, following, epoch)
            yield ready
        yield coming.result()


@unforked()
def train_step(task: Task, accelerator: Accelerator, inputs: Tensor, labels: Tensor, *, step: int) -> float:
    """Forward, loss, backward, update; returns the loss. Raises NonFiniteError if it is not finite.

    Raises ResourceError where memory runs out, in however many parts the batch is taken (``training.parts``).
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

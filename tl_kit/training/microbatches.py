"""One step's gradient, in as many parts as memory allows: the same step as with the whole batch at once.

The batch's loss is the mean of its images' losses, or a weighted mean; each part's loss counts with the part's share of
the weights, and gradients add up. What a layer computes over the images of a batch (BatchNorm), it computes over those
of a part, and dropout draws other numbers.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm

from tl_kit.errors import NonFiniteError, ResourceError
from tl_kit.machine.memory import is_out_of_memory, release_memory
from tl_kit.machine.random_state import restored_random_state
from tl_kit.reporting import note
from tl_kit.training.late_losses import check_loss
from tl_kit.training.task import Task

__all__ = ["settle_parts", "step_gradient"]

_TRIALS = 2


class _Processes(Protocol):
    """The part of an Accelerator that a gradient needs."""

    @property
    def num_processes(self) -> int: ...

    def reduce(self, tensor: Tensor, reduction: str) -> Tensor: ...

    def backward(self, loss: Tensor) -> None: ...

    def no_sync(self, model: nn.Module) -> AbstractContextManager[object]: ...


class _Alone:
    """A process that shares nothing, also inside of a group."""

    num_processes = 1

    def reduce(self, tensor: Tensor, reduction: str) -> Tensor:
        return tensor

    def backward(self, loss: Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]

    def no_sync(self, model: nn.Module) -> AbstractContextManager[object]:
        return nullcontext()


def step_gradient(task: Task, accelerator: _Processes, inputs: Tensor, labels: Tensor, *, step: int) -> Tensor:
    """Leave the gradient in the parameters; returns the loss (), without the penalty.

    Where memory runs out, the device gives up what training can do without; where that is not enough, the parts of this
    and of all later batches are half as large. Several processes divide theirs
    by what :func:`settle_parts` has found. Raises NonFiniteError for a loss that is not finite, unless the task reads
    its losses later; ResourceError where nothing is left to divide.
    """
    while True:
        try:
            return _accumulate(task, accelerator, inputs, labels, step=step)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if task.give_up():
                task.optimizer.zero_grad(set_to_none=True)
                note("memory is short on the device: the images are no longer kept there")
            else:
                _halve(task, len(inputs), error, divisible=accelerator.num_processes == 1)
        release_memory()


def settle_parts(task: Task, accelerator: Accelerator, inputs: Tensor, labels: Tensor) -> None:
    """Agree, in a group of processes, on parts that fit in the memory of each: a trial step, which leaves no trace.

    In training it would be too late: a process that runs out of memory leaves the others waiting for its gradients.
    There is a second trial after the first step, which fills the optimizer's state. ``inputs`` is a batch of the
    largest size. Raises ResourceError in all processes if the smallest parts do not fit in one of them.
    """
    if accelerator.num_processes == 1 or task.microbatch.trials == _TRIALS:
        return
    task.microbatch.trials += 1
    module = accelerator.unwrap_model(task.model)
    buffers = {name: tensor.clone() for name, tensor in module.named_buffers()}
    failed: ResourceError | None = None
    with restored_random_state(inputs.device):
        try:
            step_gradient(replace(task, model=module), _Alone(), inputs, labels, step=0)
        except NonFiniteError:
            pass  # the first step says so, in all processes
        except ResourceError as error:
            failed = error
    task.optimizer.zero_grad(set_to_none=True)
    with torch.no_grad():
        for name, tensor in module.named_buffers():
            tensor.copy_(buffers[name])
    rows = torch.tensor([0 if failed else task.microbatch.rows or len(inputs)], device=accelerator.device)
    least = int(accelerator.gather(rows).min())
    if not least:
        raise failed or ResourceError("memory ran out in another process: choose a smaller --batch-size or model")
    task.microbatch.rows = None if least >= len(inputs) and task.microbatch.rows is None else least


def _accumulate(task: Task, accelerator: _Processes, inputs: Tensor, labels: Tensor, *, step: int) -> Tensor:
    """The loss; of several processes, the mean of theirs: one that is not finite is seen in all of them."""
    parts, weigh = _parts(len(inputs), task.microbatch.rows), task.loss.weigh
    assert parts == 1 or weigh is not None
    whole = weigh(labels) if weigh is not None and parts > 1 else 1.0
    wide = torch.float32 if inputs.device.type == "mps" else torch.float64  # Apple's GPUs have no float64
    value = torch.zeros((), dtype=wide, device=inputs.device)
    pieces = zip(inputs.tensor_split(parts), labels.tensor_split(parts), strict=True)
    for number, (some, their_labels) in enumerate(pieces, start=1):
        last = number == parts
        with nullcontext() if last else accelerator.no_sync(task.model):
            loss = _loss(task, some, their_labels)
            if weigh is not None and parts > 1:
                loss = loss * (weigh(their_labels) / whole)
            value = value + loss.detach()
            if last and accelerator.num_processes > 1:
                value = accelerator.reduce(value, reduction="mean")
            if last or accelerator.num_processes == 1:
                _check(task, value, step)
            if last and task.loss.penalty is not None:
                loss = loss + task.loss.penalty()
            _backward(task, accelerator, loss)
    return value


def _loss(task: Task, inputs: Tensor, labels: Tensor) -> Tensor:
    with task.precision(), _attention(task.second_order):
        logits = task.model(inputs)
    return task.loss.objective(logits.float(), labels)


def _check(task: Task, value: Tensor, step: int) -> None:
    """Before the backward pass, while the weights are still good, where reading the loss holds nothing up."""
    if not task.loss_lag:
        check_loss(float(value), step)


def _backward(task: Task, accelerator: _Processes, loss: Tensor) -> None:
    if not task.second_order:
        accelerator.backward(loss)
        return
    parameters = [parameter for group in task.optimizer.param_groups for parameter in group["params"]]
    gradients = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient


def _attention(second_order: bool) -> AbstractContextManager[None]:
    """Use attention that is not fused where second derivatives are needed: fused attention has none."""
    return sdpa_kernel(SDPBackend.MATH) if second_order else nullcontext()


def _parts(images: int, rows: int | None) -> int:
    """Parts of nearly the same size, at most ``rows``; none of a single image where two fit."""
    if rows is None or rows >= images:
        return 1
    return images if rows == 1 else min(math.ceil(images / rows), images // 2)


def _halve(task: Task, images: int, error: BaseException, *, divisible: bool) -> None:
    rows = min(images, task.microbatch.rows or images)
    if task.second_order or task.loss.weigh is None or not divisible or rows <= _least(task.model):
        raise ResourceError(
            f"memory ran out with {rows} images in one pass: choose a smaller --batch-size, --img-size or model"
        ) from error
    task.optimizer.zero_grad(set_to_none=True)
    task.microbatch.rows = math.ceil(rows / 2)
    note(
        f"memory ran out with {rows} images in one pass: batches are trained on in parts of {task.microbatch.rows}, "
        "and one step is still taken for all of a batch"
    )


def _least(model: nn.Module) -> int:
    """The fewest images of a part: BatchNorm has no statistics of a single image's features."""
    normalises = any(isinstance(module, _BatchNorm) and module.training for module in model.modules())
    return 2 if normalises else 1

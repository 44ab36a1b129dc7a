"""One step's gradient, in as many parts as memory allows: the same step as with the whole batch at once.

The batch's loss is the mean of its images' losses, or a weighted mean; each part's loss counts with the part's share of
the weights, and gradients add up. What a layer computes over the images of a batch (BatchNorm), it computes over those
of a part, and dropout draws other numbers.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm

from tl_kit.errors import ResourceError
from tl_kit.machine.memory import is_out_of_memory, release_memory
from tl_kit.reporting import note
from tl_kit.training.late_losses import check_loss
from tl_kit.training.task import Task

__all__ = ["step_gradient"]


def step_gradient(task: Task, accelerator: Accelerator, inputs: Tensor, labels: Tensor, *, step: int) -> Tensor:
    """Leave the gradient in the parameters; returns the loss (), without the penalty.

    Where memory runs out, the parts of this and of all later batches are half as large. Raises NonFiniteError for
    a loss that is not finite, unless the task reads its losses later; ResourceError where nothing is left to divide.
    """
    while True:
        try:
            return _accumulate(task, accelerator, inputs, labels, step=step)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            _halve(task, accelerator, len(inputs), error)
        release_memory()


def _accumulate(task: Task, accelerator: Accelerator, inputs: Tensor, labels: Tensor, *, step: int) -> Tensor:
    parts = _parts(len(inputs), task.microbatch.rows)
    if parts == 1:
        loss = _loss(task, inputs, labels)
        value: Tensor = loss.detach()
        if accelerator.num_processes > 1:
            value = accelerator.reduce(value, reduction="mean")  # not finite in one process: in all
        _check(task, value, step)
        _backward(task, accelerator, loss if task.loss.penalty is None else loss + task.loss.penalty())
        return value
    assert task.loss.weigh is not None
    whole, value = task.loss.weigh(labels), torch.zeros((), dtype=torch.float64, device=inputs.device)
    for some, their_labels in zip(inputs.tensor_split(parts), labels.tensor_split(parts), strict=True):
        loss = _loss(task, some, their_labels) * (task.loss.weigh(their_labels) / whole)
        value = value + loss.detach()
        _check(task, value, step)
        accelerator.backward(loss)
    if task.loss.penalty is not None:
        accelerator.backward(task.loss.penalty())
    return value


def _loss(task: Task, inputs: Tensor, labels: Tensor) -> Tensor:
    with task.precision(), _attention(task.second_order):
        logits = task.model(inputs)
    return task.loss.objective(logits.float(), labels)


def _check(task: Task, value: Tensor, step: int) -> None:
    """Before the backward pass, while the weights are still good, where reading the loss holds nothing up."""
    if not task.loss_lag:
        check_loss(float(value), step)


def _backward(task: Task, accelerator: Accelerator, loss: Tensor) -> None:
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


def _halve(task: Task, accelerator: Accelerator, images: int, error: BaseException) -> None:
    rows = min(images, task.microbatch.rows or images)
    whole = task.second_order or task.loss.weigh is None or accelerator.num_processes > 1
    if whole or rows <= _least(task.model):
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

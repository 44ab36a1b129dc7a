"""Train and eval mode under a policy: what is frozen stays in eval mode, through every ``.train()`` call.

A frozen BatchNorm in train mode would still move its running statistics, and normalise by the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call

__all__ = ["apply_policy", "forward_order", "set_train_mode"]


def apply_policy(model: nn.Module, trainable: Collection[str]) -> None:
    """Let exactly the parameters named in ``trainable`` require gradients."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trainable)


def forward_order(model: nn.Module, images: Tensor) -> list[str]:
    """Names of all modules, in the order in which a forward pass of ``images`` (n, c, h, w) enters them.

    On a GPU, the pass is tried without numbers first (torch's device "meta"): it would load kernels for a shape and a
    precision that no later pass has, which takes seconds.
    """
    return _order_on_gpu(model, images) if images.is_cuda else _order(model, model, images)


def _order_on_gpu(model: nn.Module, images: Tensor) -> list[str]:
    try:
        return _order(model, partial(_without_numbers, model), images.to("meta"))
    except (RuntimeError, TypeError, ValueError, NotImplementedError):  # a network that looks at its numbers
        return _order(model, model, images)


def _without_numbers(model: nn.Module, images: Tensor) -> object:
    """A forward pass on the device "meta"; the model stays where it is."""
    tensors = {name: tensor.to("meta") for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    return functional_call(model, tensors, (images,))


def _order(model: nn.Module, forward: Callable[[Tensor], object], images: Tensor) -> list[str]:
    order: list[str] = []
    hooks = [
        module.register_forward_pre_hook(lambda _module, _args, name=name: order.append(name))
        for name, module in model.named_modules()
    ]
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        with torch.inference_mode():
            forward(images)
    finally:
        for module, training in modes:
            module.training = training
        for hook in hooks:
            hook.remove()
    return order


def set_train_mode(
    model: nn.Module, order: Sequence[str], *, smallest_batch: int = 2, batchnorm: str = "train"
) -> None:
    """Put in train mode what trains and what runs after it; everything else in eval mode.

    ``order``: the forward order. Modules without parameters (dropout, stochastic depth) train only after the last
    frozen layer below the first one that trains; modules whose parameters are all frozen never do. A batch of one has
    no statistics of its own: with ``smallest_batch`` 1, as with ``batchnorm`` "frozen", BatchNorm normalises by its
    running statistics, which stay as they are, and only its scale and shift train.
    """
    model.train()
    for name in order[: _frozen_below(model, order)]:
        module = model.get_submodule(name)
        if not any(True for _ in module.parameters()):
            module.eval()
    running = batchnorm == "frozen" or smallest_batch < 2
    for module in model.modules():
        own = list(module.parameters())
        kept = running and isinstance(module, nn.modules.batchnorm._BatchNorm)
        if kept or (own and not any(p.requires_grad for p in own)):
            module.eval()


def _frozen_below(model: nn.Module, order: Sequence[str]) -> int:
    """Number of modules that a forward pass enters up to the last frozen layer before the first that trains."""
    last = 0
    for position, name in enumerate(order, start=1):
        own = list(model.get_submodule(name).parameters(recurse=False))
        if any(p.requires_grad for p in own):
            return last
        if own:
            last = position
    return len(order)

"""Train and eval mode under a policy: what is frozen stays in eval mode, through every ``.train()`` call.

A frozen BatchNorm in train mode would still move its running statistics, and normalise by the batch.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

__all__ = ["apply_policy", "forward_order", "set_train_mode"]


def apply_policy(model: nn.Module, trainable: Collection[str]) -> None:
    """Let exactly the parameters named in ``trainable`` require gradients."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trainable)


def forward_order(model: nn.Module, images: Tensor) -> list[str]:
    """Names of all modules, in the order in which a forward pass of ``images`` (n, c, h, w) enters them."""
    order: list[str] = []
    hooks = [
        module.register_forward_pre_hook(lambda _module, _args, name=name: order.append(name))
        for name, module in model.named_modules()
    ]
    was_training = model.training
    try:
        model.eval()
        with torch.inference_mode():
            model(images)
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return order


def set_train_mode(model: nn.Module, order: Collection[str], *, smallest_batch: int = 2) -> None:
    """Put in train mode what trains and what runs after it; everything else in eval mode.

    ``order``: the forward order. Modules without parameters (dropout, stochastic depth) train only after the first
    module that does; modules whose parameters are all frozen never do. A batch of one has no statistics of its own:
    with ``smallest_batch`` 1, BatchNorm normalises by its running statistics, and only its scale and shift train.
    """
    model.train()
    first_seen = False
    for name in order:
        module = model.get_submodule(name)
        first_seen = first_seen or any(p.requires_grad for p in module.parameters(recurse=False))
        if not first_seen and not any(True for _ in module.parameters()):
            module.eval()
    for module in model.modules():
        own = list(module.parameters())
        alone = smallest_batch < 2 and isinstance(module, nn.modules.batchnorm._BatchNorm)
        if alone or (own and not any(p.requires_grad for p in own)):
            module.eval()

"""DropConnect (Wan et al. 2013): weights, not activations, are dropped during training.

timm's ``drop_connect`` is stochastic depth under another name; this is the one on weights. It is inverted: what is
kept is divided by the probability of keeping it, so that the expectation in training is the weight used at test time.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from tl_kit.errors import ConfigError
from tl_kit.optimization.key_values import require_known

__all__ = ["DropConnectHandle", "apply_dropconnect", "dropconnect"]


def dropconnect(weight: Tensor, p: float, *, training: bool = True, generator: torch.Generator | None = None) -> Tensor:
    """``weight · mask / (1 − p)`` with a mask of independent Bernoulli(1 − p) draws; the weight itself in evaluation.

    ``p`` is the probability of dropping, at least 0 and below 1 (:class:`ConfigError` otherwise). Gradients reach
    only the weights that were kept.
    """
    if not 0 <= p < 1:
        raise ConfigError(f"the DropConnect probability must be at least 0 and below 1, not {p}")
    if not training or p == 0:
        return weight
    kept = torch.rand(weight.shape, generator=generator, device=weight.device) >= p
    return weight * kept / (1 - p)


@dataclass(frozen=True)
class DropConnectHandle:
    """Takes DropConnect off again."""

    hooks: tuple[RemovableHandle, ...]

    def remove(self) -> None:
        """Let the modules use their whole weights in training again."""
        for hook in self.hooks:
            hook.remove()


def apply_dropconnect(model: nn.Module, module_names: Collection[str], *, p: float) -> DropConnectHandle:
    """Drop weights of the named Linear and Conv modules while they train; one mask for each forward pass.

    Biases are kept. Names of parameters and the state dict do not change, so that freezing policies, the audit and
    checkpoints see the same model. Raises :class:`ConfigError` for an unknown name or a module of another kind.
    """
    modules = dict(model.named_modules())
    dropconnect(torch.empty(0), p)  # checks p before anything is attached
    for name in module_names:
        require_known("module", name, modules)
        if not isinstance(modules[name], (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            kind = type(modules[name]).__name__
            raise ConfigError(f"DropConnect works on Linear and Conv modules, and {name!r} is a {kind}")
    hooks: list[RemovableHandle] = []
    for name in dict.fromkeys(module_names):
        hooks.append(modules[name].register_forward_pre_hook(_Drop(p)))
        hooks.append(modules[name].register_forward_hook(_restore, always_call=True))
    return DropConnectHandle(tuple(hooks))


@dataclass(frozen=True)
class _Drop:
    p: float

    def __call__(self, module: nn.Module, inputs: Any) -> None:
        # An entry in the instance's dict is found before the parameter of that name, which stays where it is.
        if module.training:
            weight = module._parameters["weight"]
            assert weight is not None
            module.__dict__["weight"] = dropconnect(weight, self.p)


def _restore(module: nn.Module, inputs: Any, output: Any) -> None:
    module.__dict__.pop("weight", None)

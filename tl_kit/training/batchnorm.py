"""BatchNorm's running statistics, estimated anew for weights that no run has trained.

Averaged weights make activations whose mean and variance are not the average of the ingredients' (Izmailov et al. 2018,
"Averaging Weights Leads to Wider Optima and Better Generalization", section 3.2).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["reestimate_statistics", "statistics_layers"]


def statistics_layers(model: nn.Module) -> dict[str, _BatchNorm]:
    """The BatchNorm layers that keep running statistics, by name."""
    return {n: m for n, m in model.named_modules() if isinstance(m, _BatchNorm) and m.running_mean is not None}


def reestimate_statistics(
    model: nn.Module, batches: Iterable[Tensor], *, layers: Collection[_BatchNorm] | None = None
) -> None:
    """Replace the running statistics of ``layers`` (all that have any) by those of ``batches`` (n, c, h, w), n > 1.

    Mean and unbiased variance of a layer's input are taken batch by batch, each normalised by its own, and averaged
    (PyTorch's ``momentum=None``). All other layers stay in eval mode: dropout is off. The model ends in eval mode.
    """
    layers = statistics_layers(model).values() if layers is None else layers
    momenta = [layer.momentum for layer in layers]
    model.eval()
    try:
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None
            layer.training = True  # not .train(): timm's layers hold dropout and activation of their own
        with torch.no_grad():
            for batch in batches:
                model(batch)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        model.eval()

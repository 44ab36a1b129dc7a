"""BatchNorm statistics of given weights, from one pass over images."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

__all__ = ["reestimate_statistics"]


@torch.no_grad()
def reestimate_statistics(module: nn.Module, batches: Iterable[Tensor]) -> int:
    """Running statistics as means over ``batches`` (n, ...), n > 1, of each one's own; returns the number of layers.

    Only of the BatchNorm layers that are in train mode: frozen ones keep theirs. (torch's ``update_bn`` takes all of
    them, and leaves dropout active.) They normalise by the batch on the way, as in training. The module is left in
    eval mode; without such a layer no batch is asked for.
    """
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    norms = [norm for norm in norms if norm.track_running_stats]
    module.eval()
    if not norms:
        return 0
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # every batch counts the same
        norm.train()
    try:
        for batch in batches:
            module(batch)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        module.eval()
    return len(norms)

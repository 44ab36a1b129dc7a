"""Penalties on the weights, added to the loss; the decoupled form is the optimizers' own weight decay.

All take named parameters, skip those that are frozen or exempt from decay (``decay_exempt`` in ``groups``: biases,
norms, and names given as ``exempt``), and return a scalar tensor that can be differentiated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from tl_kit.errors import ConfigError
from tl_kit.optimization.param_groups import decay_exempt

__all__ = ["l1_penalty", "l2_penalty", "l2_sp_penalty"]

NamedParameters = Iterable[tuple[str, Tensor]]


def l1_penalty(parameters: NamedParameters, *, strength: float, exempt: Iterable[str] = ()) -> Tensor:
    """``strength · Σ|w|``; the gradient is ``strength · sign(w)``. ``exempt``: further names or patterns."""
    return strength * _total(parameters, exempt, lambda name, weight: weight.abs().sum())


def l2_penalty(parameters: NamedParameters, *, strength: float, exempt: Iterable[str] = ()) -> Tensor:
    """``strength / 2 · Σw²``; the gradient is ``strength · w``, as the coupled ``weight_decay`` of torch's SGD."""
    return strength / 2 * _total(parameters, exempt, lambda name, weight: weight.square().sum())


def l2_sp_penalty(
    parameters: NamedParameters,
    start: Mapping[str, Tensor],
    *,
    alpha: float,
    beta: float,
    exempt: Iterable[str] = (),
) -> Tensor:
    """``alpha / 2 · Σ(w − w⁰)² + beta / 2 · Σw²``: towards the start, and towards zero for what is new.

    L2-SP of Li, Grandvalet & Davoine (2018). ``start`` maps the names of the pretrained weights to w⁰; parameters
    without an entry, such as a new head, are pulled to zero with ``beta``. Raises :class:`ConfigError` where a
    weight and its start differ in shape.
    """

    def distance(name: str, weight: Tensor) -> Tensor:
        origin = start.get(name)
        if origin is None:
            return beta / 2 * weight.square().sum()
        if origin.shape != weight.shape:
            raise ConfigError(f"{name!r} has shape {tuple(weight.shape)}, but {tuple(origin.shape)} at the start")
        return alpha / 2 * (weight - origin.detach().to(weight)).square().sum()

    return _total(parameters, exempt, distance)


def _total(parameters: NamedParameters, exempt: Iterable[str], term: Callable[[str, Tensor], Tensor]) -> Tensor:
    patterns = tuple(exempt)
    terms = [
        term(name, weight)
        for name, weight in parameters
        if weight.requires_grad and not decay_exempt(name, weight, patterns=patterns)
    ]
    return torch.stack(terms).sum() if terms else torch.zeros(())

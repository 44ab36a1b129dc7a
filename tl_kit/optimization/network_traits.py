"""Traits of a network that its hyperparameters follow from: which of its weights are scale-free, and by which norm.

A weight is scale-free where the network's output stays the same if all of it is multiplied by a positive number: a norm
divides its output by its size (BatchNorm by the batch's statistics, GroupNorm and LayerNorm by each image's), or the
weight is standardised before it is used (NFNet). Such a weight may shrink as it likes. All others lose what they have
learned with their size, so that a decay which suits the first kind destroys the second.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tl_kit.optimization.param_groups import decay_exempt, no_weight_decay

__all__ = ["NetworkTraits", "ScaleFree", "find_scale_free", "network_traits", "shrinking_weights"]

_IMAGES, _SIDE, _DIRECTIONS = 4, 96, 3
_TINY_EPS = 1e-10
# Over the 48 networks of tests/optimization/test_families.py, scale-free weights reach 0.00006 (EfficientNet-Lite0:
# 0.001), and of all others the lowest is 0.026.
_FREE_BELOW = 0.005


@dataclass(frozen=True, kw_only=True)
class ScaleFree:
    """Names of the scale-free weights: ``always``, and further ones while BatchNorm uses the ``batch``'s statistics."""

    always: frozenset[str]
    batch: frozenset[str]

    def under(self, statistics: str) -> frozenset[str]:
        """Those under BatchNorm ``statistics`` "train" (each batch's own) or "frozen" (the running ones)."""
        return self.always if statistics == "frozen" else self.always | self.batch


@dataclass(frozen=True, kw_only=True)
class NetworkTraits:
    """Counts of a network under a policy.

    ``decayed`` counts the trained tensors that a decay applies to, without the classifier's; ``batch_free`` those of
    them that BatchNorm makes scale-free by the batch's statistics, ``always_free`` those that are so without it;
    ``batchnorms`` the network's BatchNorm layers, trained or not. ``name`` is timm's, with the tag of its weights;
    ``parameters`` are the whole network's.
    """

    decayed: int
    batch_free: int
    always_free: int
    batchnorms: int
    name: str = ""
    parameters: int = 0

    @property
    def normed(self) -> bool:
        """True where BatchNorm follows at least half of the decayed weights, or none is decayed, as under ``head``."""
        return 2 * self.batch_free >= self.decayed

    def bare(self, statistics: str) -> int:
        """The decayed weights that nothing makes scale-free, under BatchNorm ``statistics``."""
        free = self.always_free + (0 if statistics == "frozen" else self.batch_free)
        return self.decayed - free


def network_traits(
    model: nn.Module, trained: Collection[str], classifier: Collection[str], free: ScaleFree
) -> NetworkTraits:
    """The traits of ``model`` where the parameters named in ``trained`` train."""
    decayed = _decayed(model, trained, classifier)
    return NetworkTraits(
        decayed=len(decayed),
        batch_free=sum(name in free.batch for name in decayed),
        always_free=sum(name in free.always for name in decayed),
        batchnorms=sum(isinstance(module, _BatchNorm) for module in model.modules()),
        name=_name(model),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
    )


def _name(model: nn.Module) -> str:
    """``vit_base_patch16_224.mae``; empty for a network that is not timm's."""
    card = getattr(model, "pretrained_cfg", None) or {}
    return ".".join(str(card[key]) for key in ("architecture", "tag") if card.get(key))


def shrinking_weights(
    model: nn.Module, trained: Collection[str], classifier: Collection[str], free: Collection[str]
) -> list[str]:
    """The trained tensors subject to decay that are not among the ``free``, without the ``classifier``'s."""
    return [name for name in _decayed(model, trained, classifier) if name not in free]


def _decayed(model: nn.Module, trained: Collection[str], classifier: Collection[str]) -> list[str]:
    patterns = no_weight_decay(model)
    return [
        name
        for name, parameter in model.named_parameters()
        if name in trained and name not in classifier and not decay_exempt(name, parameter, patterns=patterns)
    ]


def find_scale_free(model: nn.Module, input_size: Sequence[int]) -> ScaleFree:
    """The scale-free weights of a network that takes images of ``input_size`` (c, h, w), by Euler's theorem.

    The output does not change with the scale of W exactly where the sum of W times dL/dW vanishes for every loss L. So
    a copy with random parameters (zeros, as in a residual branch's last scale, would hide what comes before) is asked
    for the gradients of a few random losses on a few images of noise: once with BatchNorm by the batch, once by its
    running statistics. Neither the model nor torch's generator is touched.
    """
    trial = _randomised(model)
    norms = [module for module in trial.modules() if isinstance(module, _BatchNorm)]
    small = (input_size[0], *(min(side, _SIDE) for side in input_size[1:]))
    try:
        return _free_at(trial, norms, small)
    except (RuntimeError, AssertionError, ValueError):  # of a fixed size, or with more halvings than it allows
        return _free_at(trial, norms, input_size)


def _free_at(trial: nn.Module, norms: Sequence[nn.Module], size: Sequence[int]) -> ScaleFree:
    always = _unmoved(trial, size)
    if not norms:
        return ScaleFree(always=always, batch=frozenset())
    try:
        for norm in norms:
            norm.training = True  # not .train(): timm's layers hold dropout and activation of their own
        by_batch = _unmoved(trial, size)
    finally:
        trial.eval()
    return ScaleFree(always=always, batch=by_batch - always)


def _randomised(model: nn.Module) -> nn.Module:
    """A copy in eval mode: random float32 parameters, fresh running statistics, and an epsilon that plays no part."""
    trial = copy.deepcopy(model).float().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in trial.named_parameters():
            parameter.requires_grad_(parameter.ndim > 1)
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                noise = noise / parameter[0].numel() ** 0.5
            elif not name.endswith("bias"):
                noise = 1 + 0.25 * noise.clamp(-2, 2)
            else:
                noise = 0.5 * noise
            parameter.copy_(noise)
    for module in trial.modules():
        if isinstance(getattr(module, "eps", None), float):
            vars(module)["eps"] = _TINY_EPS
        if isinstance(module, _BatchNorm) and module.running_mean is not None:
            module.reset_running_stats()
    return trial


def _unmoved(trial: nn.Module, size: Sequence[int]) -> frozenset[str]:
    """Names of the weights of at least two dimensions for which W times dL/dW sums to zero, compared with its terms."""
    weights = {name: p for name, p in trial.named_parameters() if p.ndim > 1}
    device = next(iter(weights.values())).device
    generator = torch.Generator().manual_seed(1)
    with torch.enable_grad():
        output = _first(trial(torch.randn((_IMAGES, *size), generator=generator).to(device)))
    moved: set[str] = set()
    for _ in range(_DIRECTIONS):
        direction = torch.randn(output.shape, generator=generator).to(device)
        gradients = torch.autograd.grad(output, list(weights.values()), direction, retain_graph=True, allow_unused=True)
        for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
            if gradient is None or _sum_counts((weight.detach() * gradient).double()):
                moved.add(name)
    return frozenset(weights.keys() - moved)


def _sum_counts(terms: Tensor) -> bool:
    """True where terms do not cancel out; also where all of them are zero, which says nothing."""
    length = float(terms.norm())
    return not abs(float(terms.sum())) < _FREE_BELOW * length


def _first(output: object) -> Tensor:
    """The output, or the first of several (distilled networks in train mode)."""
    found = output[0] if isinstance(output, tuple | list) else output
    assert isinstance(found, Tensor)
    return found

"""Traits of a network that its hyperparameters follow from: which of its weights BatchNorm follows.

Weights that a BatchNorm follows may shrink as they like: it divides by their size. All others lose what they have
learned with it, so that a decay which suits the first kind destroys the second.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tl_kit.optimization.param_groups import decay_exempt, no_weight_decay

__all__ = ["NetworkTraits", "bare_weights", "network_traits"]


@dataclass(frozen=True, kw_only=True)
class NetworkTraits:
    """Counts of a network under a policy.

    ``decayed`` counts the trained tensors that a decay applies to, without the classifier's; ``bare`` those of them
    that no BatchNorm follows; ``batchnorms`` the network's BatchNorm layers, trained or not.
    """

    decayed: int
    bare: int
    batchnorms: int

    @property
    def normed(self) -> bool:
        """True where BatchNorm follows at least half of the decayed weights, or none is decayed, as under ``head``."""
        return 2 * self.bare <= self.decayed


def network_traits(model: nn.Module, trained: Collection[str], classifier: Collection[str]) -> NetworkTraits:
    """The traits of ``model`` where the parameters named in ``trained`` train."""
    bare, decayed = bare_weights(model, trained, classifier)
    batchnorms = sum(isinstance(module, _BatchNorm) for module in model.modules())
    return NetworkTraits(decayed=decayed, bare=len(bare), batchnorms=batchnorms)


def bare_weights(model: nn.Module, trained: Collection[str], classifier: Collection[str]) -> tuple[list[str], int]:
    """The trained tensors subject to decay that no BatchNorm follows, and how many are subject to it in all.

    Tensors of the ``classifier`` count in neither. A weight is followed where the next module with parameters, in the
    order in which the model lists them, is a BatchNorm; activations in between do not matter. The order is that of the
    model's construction, which costs no forward pass; a weight in doubt counts as not followed.
    """
    patterns, followed = no_weight_decay(model), set(_followed(model))
    decayed = [
        name
        for name, parameter in model.named_parameters()
        if name in trained and name not in classifier and not decay_exempt(name, parameter, patterns=patterns)
    ]
    return [name for name in decayed if name not in followed], len(decayed)


def _followed(model: nn.Module) -> Iterator[str]:
    """Names of the weights of at least two dimensions after which a BatchNorm comes.

    Weights side by side in a list (MixNet's kernels of several sizes) are followed by what follows the last of them.
    """
    before: list[str] = []
    modules = dict(model.named_modules())
    for name, module in modules.items():
        if isinstance(module, _BatchNorm):
            yield from before
            before = []
            continue
        weight = dict(module.named_parameters(recurse=False)).get("weight")
        if weight is None:
            continue
        siblings = [other for other in before if _side_by_side(name, other, modules)]
        before = [*siblings, f"{name}.weight"] if weight.ndim > 1 else []  # another kind of norm ends it


def _side_by_side(name: str, weight: str, modules: Mapping[str, nn.Module]) -> bool:
    """True where a module stands in the same ModuleList or ModuleDict as the module of a weight."""
    parent, _, _ = name.rpartition(".")
    other = weight.removesuffix(".weight").rpartition(".")[0]
    return parent == other and isinstance(modules[parent], nn.ModuleList | nn.ModuleDict)

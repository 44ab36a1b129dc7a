"""Default optimizer, rate and decay, as functions of facts about the network and the run.

Weights that a BatchNorm follows may shrink as they like: it divides by their size. All others lose what they have
learned with it, so that a decay which suits the first kind destroys the second.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tl_kit.config import OptimizerDefaults
from tl_kit.optimization.param_groups import decay_exempt, no_weight_decay

__all__ = ["RunFacts", "bare_decay", "bare_weights", "decay", "optimizer_name", "rate_scale"]


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What the defaults of a gradient run follow from.

    ``decayed`` counts the trained tensors that a decay applies to, without the classifier's; ``bare`` those of them
    that no BatchNorm follows. ``head_only``: nothing but the classifier trains; ``mostly_new``: most of what trains is
    new. ``statistics`` is "frozen" where BatchNorm keeps its running ones; ``clips``: whether
    gradients are clipped; ``steps``: of the whole run.
    """

    pretrained: bool
    head_only: bool
    mostly_new: bool
    decayed: int
    bare: int
    statistics: str
    clips: bool
    steps: int

    @property
    def normed(self) -> bool:
        """Whether BatchNorm follows at least half of what is decayed; also where that is nothing, as under ``head``."""
        return 2 * self.bare <= self.decayed


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
    """Whether a module is in one list with that of a weight, and not in a sequence."""
    parent, _, _ = name.rpartition(".")
    other = weight.removesuffix(".weight").rpartition(".")[0]
    return parent == other and isinstance(modules[parent], nn.ModuleList | nn.ModuleDict)


def optimizer_name(facts: RunFacts, *, normed: str, bare: str) -> str:
    """``normed`` where BatchNorm follows at least half of the trained weights, ``bare`` elsewhere."""
    return normed if facts.normed else bare


def rate_scale(facts: RunFacts, optimizer: str, defaults: OptimizerDefaults = OptimizerDefaults()) -> float:
    """What share of the from-scratch rate suits the run; a head alone, or random weights, train from scratch."""
    if not facts.pretrained or facts.head_only:
        return 1.0
    if optimizer in defaults.clipped and facts.clips:
        gentle = facts.statistics == "frozen" or not facts.normed
        return defaults.frozen_norm_scale if gentle else defaults.clipped_scale
    whole = facts.mostly_new and facts.normed and optimizer not in defaults.clipped
    return 1.0 if whole else defaults.finetune_scale


def decay(
    facts: RunFacts,
    optimizer: str,
    *,
    usual: float,
    lr: float,
    options: Mapping[str, object],
    defaults: OptimizerDefaults = OptimizerDefaults(),
) -> float:
    """The decay of a run's weights, by that of the optimizer and what follows the weights.

    Less of a coupled decay with frozen statistics: no norm then makes up for weights that shrink. Less of it from
    random weights too, at whose rate the usual one shrinks faster than the gradient can build.
    """
    if not facts.normed:
        return bare_decay(facts, optimizer, usual=usual, lr=lr, options=options, defaults=defaults)
    if optimizer not in defaults.clipped:
        return usual
    if not facts.pretrained and not facts.head_only:
        return min(usual, defaults.scratch_decay)
    return min(usual, defaults.frozen_norm_decay) if facts.statistics == "frozen" else usual


def bare_decay(
    facts: RunFacts,
    optimizer: str,
    *,
    usual: float,
    lr: float,
    options: Mapping[str, object],
    defaults: OptimizerDefaults = OptimizerDefaults(),
) -> float:
    """The decay of weights that no BatchNorm follows: over the whole run, it takes little of them.

    Rate times decay times steps, times what momentum carries on, is at most ``defaults.most_shrinking``.
    """
    limit = defaults.most_shrinking / max(lr * _carried(optimizer, options, defaults) * facts.steps, 1e-12)
    if optimizer not in defaults.clipped:
        return min(usual, limit)
    return min(usual, limit, defaults.frozen_norm_decay if facts.pretrained else defaults.scratch_decay)


def _carried(optimizer: str, options: Mapping[str, object], defaults: OptimizerDefaults) -> float:
    """How far a gradient carries in all, in steps: 1 / (1 - momentum) where the decay goes with momentum, else 1."""
    if optimizer not in defaults.clipped or optimizer == "sgd":
        return 1.0
    momentum = options.get("momentum", defaults.timm_momentum)
    return 1 / (1 - momentum) if isinstance(momentum, int | float) and 0 <= momentum < 1 else 1.0

"""Default hyperparameters as pure functions, each with the reason for its value as a sentence.

They follow from the data, the network's traits and the policy's, as BiT's HyperRule follows from the data (Kolesnikov
et al. 2020). The numbers stand in ``tl_kit.config`` (``LoopConfig``, ``OptimizerDefaults``, ``AugmentLevels``), where a
user may change them; docs/policies.md has the measurements behind them. What the user sets is taken as it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from tl_kit.config import AugmentLevels, FamilyDefaults, FinetuneConfig, LoopConfig, OptimizerDefaults
from tl_kit.optimization.family_rates import family_layer_decay, family_rate
from tl_kit.optimization.network_traits import NetworkTraits
from tl_kit.optimization.optimizers import default_lr, default_weight_decay, parse_options

__all__ = [
    "AS_GIVEN",
    "Case",
    "Hyperparameters",
    "PolicyTraits",
    "Reasoned",
    "augmentation",
    "bare_decay",
    "batch_size",
    "carried",
    "decay",
    "epochs",
    "head_factor",
    "hyperparameters",
    "layer_decay",
    "optimizer",
    "rate",
    "rate_scale",
    "statistics",
    "warmup",
]

AS_GIVEN = "as you said"
Value = TypeVar("Value")


class PolicyTraits(Protocol):
    """The traits of a freezing policy that hyperparameters follow from (``freezing.policies.Policy``)."""

    @property
    def head_only(self) -> bool: ...

    @property
    def mostly_new(self) -> bool: ...

    @property
    def fits_head_first(self) -> bool: ...

    @property
    def keeps_statistics(self) -> bool: ...

    @property
    def adapters(self) -> bool: ...

    @property
    def vectors(self) -> bool: ...


@dataclass(frozen=True)
class Reasoned(Generic[Value]):
    """A hyperparameter, and the reason for it in a sentence."""

    value: Value
    reason: str


@dataclass(frozen=True, kw_only=True)
class Case:
    """All that the rules look at: training images, classes, and the traits of network and policy.

    ``pretrained``: the network has been trained before; its head is new in any case.
    """

    images: int
    classes: int
    pretrained: bool
    network: NetworkTraits
    policy: PolicyTraits

    @property
    def scratch(self) -> bool:
        """True where the layers below the head train from random weights."""
        return not self.pretrained and not self.policy.head_only


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """Every hyperparameter of a gradient run that a rule decides, and the network's traits behind them.

    ``bare_decay`` is the decay of weights that nothing makes scale-free; None where they have the same as all others.
    ``layer_decay``: the factor on the rate for each layer below the head, None for one rate; ``warmup`` in epochs.
    ``head_factor``: how many times the rate a new head takes.
    ``options`` are those of the optimizer that the user gave.
    """

    network: NetworkTraits
    batch_size: Reasoned[int]
    epochs: Reasoned[int]
    augmentation: Reasoned[str]
    statistics: Reasoned[str]
    optimizer: Reasoned[str]
    options: Mapping[str, object]
    rate: Reasoned[float]
    decay: Reasoned[float]
    bare_decay: Reasoned[float] | None
    layer_decay: Reasoned[float | None]
    warmup: Reasoned[float]
    head_factor: float


def hyperparameters(case: Case, config: FinetuneConfig) -> Hyperparameters:
    """All rules in their order: the later ones look at what the earlier ones gave.

    Raises ConfigError for an optimizer, or an option of it, that does not exist.
    """
    loop = config.loop
    size = batch_size(case, config.batch_size, loop)
    length = epochs(case, size.value, config.epochs, loop)
    kept = statistics(case, config.batchnorm, loop)
    name = optimizer(case, config.optimizer, loop)
    given = config.optimizer_options
    options = dict(given) if isinstance(given, Mapping) else parse_options(name.value, given)
    clips = loop.clip_norm > 0
    lr = rate(case, name.value, config.lr, statistics=kept.value, clips=clips)
    highest = lr.value * config.range_test.highest if config.lr == "auto" else lr.value
    travel = highest * carried(name.value, options) * (length.value * math.ceil(case.images / size.value))
    shrunk = decay(case, name.value, loop.weight_decay, statistics=kept.value, travel=travel)
    bare = bare_decay(case, name.value, usual=shrunk, travel=travel)
    differs = loop.weight_decay is None and case.network.bare(kept.value) > 0 and bare.value < shrunk.value
    return Hyperparameters(
        network=case.network,
        batch_size=size,
        epochs=length,
        augmentation=augmentation(case.images / case.classes, AugmentLevels(), head_only=case.policy.head_only),
        statistics=kept,
        optimizer=name,
        options=options,
        rate=lr,
        decay=shrunk,
        bare_decay=bare if differs else None,
        layer_decay=layer_decay(case, loop.layer_decay),
        warmup=warmup(case, length.value, loop),
        head_factor=head_factor(case, name.value, config.lr),
    )


def batch_size(case: Case, given: int | None, loop: LoopConfig) -> Reasoned[int]:
    """``loop.batch_size``, and never more than there are images."""
    size = min(given or loop.batch_size, case.images)
    return Reasoned(size, f"{math.ceil(case.images / size)} steps for {case.images} images")


def epochs(case: Case, batch_size: int, given: int | None, loop: LoopConfig) -> Reasoned[int]:
    """``loop.epochs``, and more where these would be too few steps: random weights have everything to learn."""
    if given:
        return Reasoned(given, AS_GIVEN)
    if case.policy.head_only:
        return Reasoned(loop.head_epochs, f"{loop.head_epochs} where the head alone trains")
    least, most = loop.least_steps, loop.most_epochs
    if not case.pretrained:
        least, most = loop.scratch_steps, loop.scratch_most_epochs
    steps = math.ceil(case.images / batch_size)
    found = min(most, max(loop.epochs, math.ceil(least / steps)))
    if found == loop.epochs:
        return Reasoned(found, f"{loop.epochs}, which are {least} steps or more")
    if found == most:
        return Reasoned(found, f"at most {most}: {least} steps would be more")
    return Reasoned(found, f"{steps} steps an epoch: more than {loop.epochs}, for {least} steps")


def augmentation(images_per_class: float, levels: AugmentLevels, *, head_only: bool = False) -> Reasoned[str]:
    """The level of augmentation: light for few images a class, which a strong one would make unlike each other."""
    if head_only:
        return Reasoned("none", "the head is fitted to images as evaluation sees them")
    limit = levels.light_below_per_class
    name = "light" if images_per_class < limit else "standard"
    return Reasoned(name, f"{images_per_class:.0f} images a class: light below {limit}")


def statistics(case: Case, given: str, loop: LoopConfig) -> Reasoned[str]:
    """BatchNorm's statistics: "frozen" are the running ones, "train" each batch's own.

    Few images under a policy that keeps statistics: a fitted head, and pretrained layers, read features that the
    running statistics normalise; those of a batch of 32 are others, and the pretrained features are lost before they
    have adapted. With more images they adapt, and a strong decay then regularises well.
    """
    if given != "auto":
        return Reasoned(given, AS_GIVEN)
    if not (case.policy.keeps_statistics and case.pretrained):
        return Reasoned("train", "each batch's own statistics, in the layers that train")
    limit = loop.batch_statistics_from
    if case.images < limit:
        return Reasoned("frozen", f"the pretrained statistics stay: {case.images} training images, below {limit}")
    return Reasoned("train", f"each batch's own: {case.images} training images, from {limit} on")


def optimizer(case: Case, given: str | None, loop: LoopConfig) -> Reasoned[str]:
    """``loop.optimizer`` where BatchNorm follows at least half of the trained weights, elsewhere the bare one.

    A ``loop.optimizer`` other than the default is the user's, and trains every network.
    """
    network = case.network
    if case.policy.head_only:
        return Reasoned(given, AS_GIVEN) if given else Reasoned(loop.gradient_head_optimizer, "for a head alone")
    count = f"BatchNorm follows {network.batch_free} of {network.decayed} trained weight tensors"
    if given or loop.optimizer != LoopConfig.optimizer:
        return Reasoned(given or loop.optimizer, f"{AS_GIVEN}; {count}")
    if case.policy.adapters or case.policy.vectors:
        return Reasoned(loop.bare_optimizer, "adapters or vectors alone train, which differ in size")
    if network.normed:
        return Reasoned(loop.optimizer, f"{count}: at least half")
    return Reasoned(loop.bare_optimizer, f"{count}: less than half")


def rate(case: Case, optimizer: str, given: float | str | None, *, statistics: str, clips: bool) -> Reasoned[float]:
    """The highest learning rate. "auto" is found by a range test, which starts from the default.

    ``clips``: whether gradients are clipped.
    """
    if given is not None and given != "auto":
        return Reasoned(float(given), AS_GIVEN)
    usual = default_lr(optimizer, pretrained=False)
    scale, why = rate_scale(case, optimizer, statistics=statistics, clips=clips)
    found = usual * scale
    return Reasoned(found, AS_GIVEN if given else f"{usual:g} from scratch, times {scale:.3g} {why}")


def layer_decay(case: Case, given: float | None) -> Reasoned[float | None]:
    """The factor on the rate for each layer below the head: of pretrained networks that BatchNorm does not follow."""
    if given is not None:
        return Reasoned(given, AS_GIVEN)
    few = case.policy.head_only or case.policy.adapters or case.policy.vectors
    if not case.pretrained or few or case.network.normed:
        return Reasoned(None, "the same rate for all layers")
    return Reasoned(family_layer_decay(case.network), "pretrained layers far from the head change least")


def warmup(case: Case, epochs: int, loop: LoopConfig) -> Reasoned[float]:
    """Epochs in which the rate rises: a share of the run where BatchNorm does not follow the weights."""
    if loop.warmup_epochs != LoopConfig.warmup_epochs:
        return Reasoned(loop.warmup_epochs, AS_GIVEN)
    if case.policy.head_only or case.network.normed:
        return Reasoned(loop.warmup_epochs, "the usual one")
    share = FamilyDefaults.warmup
    return Reasoned(max(share * epochs, loop.warmup_epochs), f"{share:.0%} of the run")


def head_factor(
    case: Case, optimizer: str, given: float | str | None, defaults: OptimizerDefaults = OptimizerDefaults()
) -> float:
    """Times the rate, what a new head on a network that BatchNorm does not follow takes: the rate from scratch.

    At the low rate of its pretrained layers a head that starts at zero gets nowhere in a few hundred steps. One that
    was fitted takes their rate, and so does all where the user gave it.
    """
    few = case.policy.head_only or case.policy.adapters or case.policy.vectors
    low = case.pretrained and not few and not case.network.normed
    if not low or case.policy.fits_head_first or given is not None or optimizer in defaults.clipped:
        return 1.0
    return defaults.learning_rates["adamw"] / family_rate(case.network)[0]


def rate_scale(
    case: Case,
    optimizer: str,
    *,
    statistics: str,
    clips: bool = True,
    defaults: OptimizerDefaults = OptimizerDefaults(),
) -> tuple[float, str]:
    """Share of the from-scratch rate that suits the run, and why; a head alone, or random weights, take all of it."""
    normed = case.network.normed
    if not case.pretrained or case.policy.head_only:
        return 1.0, "for this policy"
    if case.policy.adapters or case.policy.vectors:
        scale = defaults.adapter_scale if case.policy.adapters else defaults.vector_scale
        return scale, "for adapters" if case.policy.adapters else "for vectors alone"
    if optimizer in defaults.clipped:
        if not clips:
            return defaults.finetune_scale, "for this policy"
        kept = statistics == "frozen" or not normed
        return defaults.frozen_norm_scale if kept else defaults.clipped_scale, "for this policy"
    if not normed:
        found, kin = family_rate(case.network)
        return found / defaults.learning_rates["adamw"], kin
    if case.policy.mostly_new:
        return 1.0, "for this policy"
    if statistics == "frozen":
        return defaults.adaptive_frozen_scale, "where BatchNorm keeps its statistics"
    return defaults.adaptive_scale, "with the batch's statistics"


def decay(
    case: Case,
    optimizer: str,
    given: float | None = None,
    *,
    statistics: str,
    travel: float,
    defaults: OptimizerDefaults = OptimizerDefaults(),
) -> Reasoned[float]:
    """The weight decay of scale-free weights and of the head; :func:`bare_decay` where most weights are not scale-free.

    With frozen statistics no weight of a network of BatchNorm is: no norm then makes up for what shrinks. Less of a
    coupled decay from random weights, at whose rate the usual one shrinks faster than the gradient can build.
    """
    if given is not None:
        return Reasoned(given, AS_GIVEN)
    usual = Reasoned(default_weight_decay(optimizer), f"the usual one of {optimizer}")
    if 2 * case.network.bare(statistics) > case.network.decayed:
        return bare_decay(case, optimizer, usual=usual, travel=travel, defaults=defaults)
    if optimizer in defaults.clipped and case.scratch:
        return _lowest(usual, _scratch(defaults))
    return usual


def bare_decay(
    case: Case,
    optimizer: str,
    *,
    usual: Reasoned[float],
    travel: float,
    defaults: OptimizerDefaults = OptimizerDefaults(),
) -> Reasoned[float]:
    """The decay of weights that nothing makes scale-free: over the whole run, it takes little of them.

    ``travel`` is how far a gradient of one carries a weight in the run: rate times steps, times :func:`carried`. Times
    the decay, it is at most ``defaults.most_shrinking``.
    """
    left = math.exp(-defaults.most_shrinking)
    slow = Reasoned(
        defaults.most_shrinking / max(travel, 1e-12),
        f"so that the run leaves {left:.0%} or more of weights that no norm follows",
    )
    if optimizer not in defaults.clipped:
        return _lowest(usual, slow)
    return _lowest(usual, slow, _unnormed(defaults) if case.pretrained else _scratch(defaults))


def _scratch(defaults: OptimizerDefaults) -> Reasoned[float]:
    return Reasoned(defaults.scratch_decay, f"at most {defaults.scratch_decay:g} from random weights")


def _unnormed(defaults: OptimizerDefaults) -> Reasoned[float]:
    limit = defaults.frozen_norm_decay
    return Reasoned(limit, f"at most {limit:g} of weights that no norm follows")


def _lowest(*limits: Reasoned[float]) -> Reasoned[float]:
    return min(limits, key=lambda limit: limit.value)


def carried(optimizer: str, options: Mapping[str, object], defaults: OptimizerDefaults = OptimizerDefaults()) -> float:
    """Total reach of a gradient, in steps: 1 / (1 - momentum) where the decay goes with momentum, else 1."""
    if optimizer not in defaults.clipped or optimizer == "sgd":
        return 1.0
    momentum = options.get("momentum", defaults.timm_momentum)
    return 1 / (1 - momentum) if isinstance(momentum, int | float) and 0 <= momentum < 1 else 1.0

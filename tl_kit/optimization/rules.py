"""Default hyperparameters as pure functions, each with the reason for its value as a sentence.

They follow from the data, the network's traits and the policy's, as BiT's HyperRule follows from the data (Kolesnikov
et al. 2020). The numbers stand in ``tl_kit.config`` (``LoopConfig``, ``OptimizerDefaults``, ``AugmentLevels``), where a
user may change them; docs/policies.md has the measurements behind them. What the user sets is taken as it is. The
rules for the learning rate are in ``rate_rules``.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from tl_kit.config import AugmentLevels, BalanceConfig, FinetuneConfig, LoopConfig, OptimizerDefaults, SwaConfig
from tl_kit.optimization.cases import AS_GIVEN, Case, Reasoned
from tl_kit.optimization.network_traits import NetworkTraits
from tl_kit.optimization.optimizers import default_weight_decay, parse_options
from tl_kit.optimization.rate_rules import head_factor, layer_decay, rate, warmup

__all__ = [
    "Hyperparameters",
    "augmentation",
    "balance",
    "bare_decay",
    "batch_size",
    "carried",
    "decay",
    "epochs",
    "hyperparameters",
    "kept_epoch",
    "optimizer",
    "patience",
    "schedule",
    "selection",
    "statistics",
]


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """Every hyperparameter of a gradient run that a rule decides, and the network's traits behind them.

    ``bare_decay`` is the decay of weights that nothing makes scale-free; None where they have the same as all others.
    ``layer_decay``: the factor on the rate for each layer below the head, None for one rate; ``warmup`` in epochs.
    ``head_factor``: how many times the rate a new head takes. ``patience``: the run ends after so many epochs without a
    better one.
    ``options`` are those of the optimizer that the user gave.
    """

    network: NetworkTraits
    batch_size: Reasoned[int]
    epochs: Reasoned[int]
    schedule: Reasoned[str]
    patience: Reasoned[int]
    kept_epoch: Reasoned[str]
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
    swa = config.swa if config.regularization.swa else None
    shape = schedule(config.schedule, loop, cycles=config.snapshots, swa=swa)
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
        schedule=shape,
        patience=patience(length.value, shape.value, config.patience, loop, averages=swa is not None),
        kept_epoch=kept_epoch(case, shape.value, config),
        augmentation=augmentation(case.images / case.classes, AugmentLevels(), head_only=case.policy.head_only),
        statistics=kept,
        optimizer=name,
        options=options,
        rate=lr,
        decay=shrunk,
        bare_decay=bare if differs else None,
        layer_decay=layer_decay(case, loop.layer_decay),
        warmup=warmup(case, length.value, shape.value, loop),
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


def schedule(given: str | None, loop: LoopConfig, *, cycles: int | None, swa: SwaConfig | None) -> Reasoned[str]:
    """The learning-rate schedule. ``cycles`` end with a snapshot each; ``swa`` averages weights, None where it is off.

    A ``loop.schedule`` other than the default is the user's.
    """
    if given:
        return Reasoned(given, AS_GIVEN)
    if cycles:
        return Reasoned("cyclic", "a snapshot at the end of each cycle")
    if swa is not None:
        return Reasoned(swa.schedule, "the usual one where weights are averaged")
    if loop.schedule != LoopConfig.schedule:
        return Reasoned(loop.schedule, AS_GIVEN)
    return Reasoned(loop.schedule, "the usual one: a rate that decays does its best work at the end")


def patience(epochs: int, schedule: str, given: int | None, loop: LoopConfig, *, averages: bool) -> Reasoned[int]:
    """Early stopping: so many epochs without a better one end the run; all of them where its end must not be lost.

    ``averages``: whether the weights of the later epochs are averaged.
    """
    if given:
        return Reasoned(given, AS_GIVEN)
    if averages:
        return Reasoned(epochs, "all epochs: the weights of the later ones are averaged")
    if schedule not in loop.stops_early:
        return Reasoned(epochs, f"all epochs: a run under {schedule} does its best work at the end")
    found = max(loop.patience, math.ceil(loop.patience * epochs / loop.epochs))
    share = f"{loop.patience} of {loop.epochs} epochs, and {loop.patience} at least"
    return Reasoned(found, f"the rate of {schedule} has no end of its own: {share}")


def kept_epoch(case: Case, schedule: str, config: FinetuneConfig) -> Reasoned[str]:
    """The epoch whose weights a run ends with: "last", or "best" by the validation figure.

    The best of many epochs on few images is the luckiest: the last one of a rate that decays to nothing is better on
    new images, and its validation score is no choice's.
    """
    if config.keep_epoch != "auto":
        return Reasoned(config.keep_epoch, AS_GIVEN)
    if config.select != "auto" or config.patience:
        return Reasoned("best", "--select, or a patience, is given")
    if case.policy.fits_head_first and not (config.guard.head_guard and case.pretrained):
        return Reasoned("best", "the fitted head that training starts from may be better")
    if schedule in config.loop.decays_to_nothing:
        return Reasoned("last", f"the rate of {schedule} decays to nothing, and validation need not choose")
    return Reasoned("best", f"the rate of {schedule} does not decay to nothing")


def balance(counts: Collection[int], given: str, config: BalanceConfig) -> Reasoned[str]:
    """Class balance for these numbers of images a class: "none", or "loss", which weighs images of uneven classes.

    "sampler" is for the user to ask for. ``counts`` are positive.
    """
    if given != "auto":
        return Reasoned(given, AS_GIVEN)
    few, many = min(counts), max(counts)
    spread = f"{few} to {many} training images a class, {many / few:.3g} times as many in the largest"
    if _uneven(counts, config):
        return Reasoned("loss", f"{spread} (from {config.uneven_from:g}): every class counts the same")
    return Reasoned("none", f"{spread} (below {config.uneven_from:g}): every image counts the same")


def selection(counts: Collection[int], given: str, config: BalanceConfig) -> Reasoned[str]:
    """The validation figure that chooses the best epoch, for these numbers of training images a class."""
    if given != "auto":
        return Reasoned(given.replace("-", "_"), AS_GIVEN)
    limit = f"{config.uneven_from:g} times the images of the smallest"
    if _uneven(counts, config):
        return Reasoned("balanced_accuracy", f"every class counts the same: the largest has {limit}, or more")
    return Reasoned("accuracy", f"the largest class has less than {limit}")


def _uneven(counts: Collection[int], config: BalanceConfig) -> bool:
    return max(counts) >= config.uneven_from * min(counts)


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
        name = given or loop.optimizer
        behind = OptimizerDefaults().behind.get(name)
        known = "" if behind is None else f"; on few photos {behind:g} points behind the best (docs/policies.md)"
        return Reasoned(name, f"{AS_GIVEN}; {count}{known}")
    if case.policy.adapters or case.policy.vectors:
        return Reasoned(loop.bare_optimizer, "adapters or vectors alone train, which differ in size")
    if network.normed:
        return Reasoned(loop.optimizer, f"{count}: at least half")
    return Reasoned(loop.bare_optimizer, f"{count}: less than half")


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

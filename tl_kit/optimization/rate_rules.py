"""Rules for the learning rate, its warm-up and its factors by layer: pure functions that give a reason too.

Pretrained networks that BatchNorm does not follow take theirs by family and size. These numbers, and where each is
from, stand in ``tl_kit.config.FamilyDefaults``.
"""

from __future__ import annotations

import fnmatch

from tl_kit.config import FamilyDefaults, LoopConfig, OptimizerDefaults
from tl_kit.optimization.cases import AS_GIVEN, Case, Reasoned
from tl_kit.optimization.network_traits import NetworkTraits
from tl_kit.optimization.optimizers import default_lr

__all__ = ["family_layer_decay", "family_rate", "head_factor", "layer_decay", "rate", "rate_scale", "warmup"]

_DEFAULTS = FamilyDefaults()


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


def warmup(case: Case, epochs: int, schedule: str, loop: LoopConfig) -> Reasoned[float]:
    """Epochs in which the rate rises: a share of the run where BatchNorm does not follow the weights."""
    if loop.warmup_epochs != LoopConfig.warmup_epochs:
        return Reasoned(loop.warmup_epochs, AS_GIVEN)
    if schedule == "onecycle":
        return Reasoned(loop.warmup_epochs, "onecycle has its own")
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


def family_rate(network: NetworkTraits, defaults: FamilyDefaults = _DEFAULTS) -> tuple[float, str]:
    """AdamW's rate, and for which networks it is."""
    pattern, found, _ = _entry(network, defaults)
    kin = f"for {pattern.strip('*.')}" if pattern else "for networks that BatchNorm does not follow"
    factors = [(size, factor) for size, factor in defaults.sizes if network.parameters >= size]
    if not factors:
        return found, kin
    size, factor = factors[-1]
    return found * factor, f"{kin} of {size / 1e6:.0f} million parameters or more"


def family_layer_decay(network: NetworkTraits, defaults: FamilyDefaults = _DEFAULTS) -> float:
    """The factor on the rate for each layer below the head."""
    return _entry(network, defaults)[2]


def _entry(network: NetworkTraits, defaults: FamilyDefaults) -> tuple[str, float, float]:
    """Pattern, rate and layer decay of the network's family; the usual ones under an empty pattern."""
    fits = (entry for entry in defaults.families if fnmatch.fnmatch(network.name, entry[0]))
    return next(fits, ("", defaults.rate, defaults.layer_decay))

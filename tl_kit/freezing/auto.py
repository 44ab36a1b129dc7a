"""``--policy auto``: a pure function of the facts.

cs231n, "Transfer learning", retrains more layers as the images grow in number. What was measured here says otherwise of
few images (docs/policies.md): a fitted head with all layers below it, gently, beats the head alone from five images a
class on; many images train the last groups as well as all of them, in a third of the time.
"""

from __future__ import annotations

from tl_kit.config import AutoPolicyConfig
from tl_kit.freezing.facts import Facts
from tl_kit.freezing.policies import POLICIES, Policy

__all__ = ["choose_policy"]


def choose_policy(facts: Facts, config: AutoPolicyConfig = AutoPolicyConfig()) -> tuple[Policy, str]:
    """The policy for these facts, and the figures behind it as a sentence."""
    size = f"{facts.images} training images, {facts.per_class:.0f} a class"
    if not facts.pretrained:
        return POLICIES["full"], f"{size}, and no pretrained weights: all layers train"
    seen = f"{size}; {_probes(facts)}"
    whole = POLICIES["lp-ft" if facts.linear_head else "full"]
    start = "from a fitted head" if facts.linear_head else "from a head at zero (its kind cannot be fitted)"
    depth = facts.last_groups(config.last_share)
    if facts.images >= config.last_groups_from and facts.groups > depth:
        part = whole if facts.linear_head else POLICIES["last"]
        return (
            part.to_depth(depth),
            f"{seen}: from {config.last_groups_from} images on the last {depth} of {facts.groups} groups are enough "
            f"({facts.shares[depth - 1]:.0%} of the parameters)",
        )
    return whole, f"{seen}: all layers train, {start}"


def _probes(facts: Facts) -> str:
    """The probes' result, in a phrase."""
    if facts.top is None or facts.best is None:
        return "no class has images enough for probes"
    figure = f"{facts.top.stage} {facts.top.accuracy:.0%}"
    if facts.domain == "different":
        return f"unlike the pretraining images ({facts.best.stage} {facts.best.accuracy:.0%}, {figure})"
    return f"like the pretraining images ({figure})"

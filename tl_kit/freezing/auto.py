"""``--policy auto``: a pure function of the facts.

cs231n, "Transfer learning": little data, retrain the last layer; more data, retrain more; and the less your images are
like those of the pretraining, the more must be retrained.
"""

from __future__ import annotations

from tl_kit.config import AutoPolicyConfig
from tl_kit.freezing.facts import Facts
from tl_kit.freezing.policies import Policy

__all__ = ["choose_policy"]


def choose_policy(facts: Facts, config: AutoPolicyConfig = AutoPolicyConfig()) -> tuple[Policy, str]:
    """The policy for these facts, and the figures behind it as a sentence."""
    size = f"{facts.images} training images, {facts.per_class:.0f} a class"
    if not facts.pretrained:
        return Policy("full"), f"{size}, and no pretrained weights: all layers train"
    return Policy("head"), size

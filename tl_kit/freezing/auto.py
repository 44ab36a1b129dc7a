"""``--policy auto``: a first, honest rule by the number of images.

cs231n, "Transfer learning": little data, retrain the last layer; more data, retrain more.
"""

from __future__ import annotations

from tl_kit.config import AutoPolicyConfig
from tl_kit.freezing.policies import Policy

__all__ = ["choose_policy"]


def choose_policy(images: int, classes: int, config: AutoPolicyConfig = AutoPolicyConfig()) -> tuple[Policy, str]:
    """The policy for so many training images in so many classes, and the reason as a sentence."""
    per_class = images / classes
    size = f"{images} training images, {per_class:.0f} a class"
    if images < config.head_below_images or per_class < config.head_below_per_class:
        return Policy("head"), (
            f"{size}: fewer than {config.head_below_images} or than {config.head_below_per_class} a class, "
            "so only the head is trained"
        )
    if images >= config.full_from_images and per_class >= config.full_from_per_class:
        return Policy("full"), (
            f"{size}: at least {config.full_from_images} and {config.full_from_per_class} a class, "
            "so all layers are trained"
        )
    policy = Policy("last", config.last_groups)
    return policy, f"{size}: enough for the last {config.last_groups} groups, too few for all layers"

"""``--policy auto`` as a function of the facts."""

from __future__ import annotations

import pytest

from tl_kit.config import AutoPolicyConfig
from tl_kit.freezing.auto import choose_policy
from tl_kit.freezing.facts import Facts, StageProbe

LIMIT = AutoPolicyConfig.last_groups_from


def facts(
    images: int,
    *,
    pretrained: bool = True,
    shares: tuple[float, ...] = (0.0, 0.3, 0.79, 0.92, 1.0),
    linear_head: bool = True,
    top: float = 0.8,
) -> Facts:
    probes = (StageProbe("early", 8, 0.7, 0.01, 1.0), StageProbe("head input", 8, top, 0.01, 1.0))
    return Facts(
        images=images,
        classes=10,
        smallest=images // 10,
        largest=images // 10,
        pretrained=pretrained,
        shares=shares,
        linear_head=linear_head,
        probes=probes if pretrained else (),
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (facts(50), "lp-ft"),
        (facts(LIMIT - 10), "lp-ft"),
        (facts(LIMIT), "lp-ft:3"),
        (facts(100_000), "lp-ft:3"),
        (facts(50, linear_head=False), "full"),
        (facts(1000, linear_head=False), "last:3"),
        (facts(1000, shares=()), "lp-ft"),
        (facts(1000, shares=(0.0, 0.1, 1.0)), "lp-ft"),
        (facts(1000, shares=(0.0, 0.75, 0.94, 1.0)), "lp-ft:2"),
        (facts(1000, shares=(0.0, *(step / 12 for step in range(1, 13)), 1.0)), "lp-ft:7"),
        (facts(1000, shares=(), linear_head=False), "full"),
        (facts(50, pretrained=False), "full"),
        (facts(100_000, pretrained=False), "full"),
    ],
)
def test_the_policy_follows_from_the_facts_and_says_them(given: Facts, expected: str) -> None:
    policy, reason = choose_policy(given)
    assert str(policy) == expected
    assert f"{given.images} training images, {given.images // 10} a class" in reason
    assert ("like the pretraining images (head input 80%)" in reason) == given.pretrained


def test_the_reason_names_the_stage_that_does_better() -> None:
    _, reason = choose_policy(facts(50, top=0.6))
    assert "unlike the pretraining images (early 70%, head input 60%)" in reason

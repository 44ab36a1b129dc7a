"""What a policy is sized to."""

from __future__ import annotations

import pytest

from tl_kit.freezing.facts import Facts, StageProbe


def facts(*accuracies: float, smallest: int = 10, largest: int = 10) -> Facts:
    probes = tuple(StageProbe(f"stage{i}", 8, accuracy, 0.01, 1.0) for i, accuracy in enumerate(accuracies))
    return Facts(
        images=smallest + largest,
        classes=2,
        smallest=smallest,
        largest=largest,
        pretrained=bool(probes),
        shares=(0.2, 0.4, 0.6, 0.8, 1.0),
        linear_head=True,
        probes=probes,
    )


@pytest.mark.parametrize(
    ("accuracies", "domain", "best"),
    [
        ((0.5, 0.7, 0.9), "similar", "stage2"),
        ((0.5, 0.9, 0.9), "similar", "stage2"),
        ((0.5, 0.905, 0.9), "similar", "stage1"),
        ((0.5, 0.95, 0.9), "different", "stage1"),
        ((), "unknown", None),
    ],
)
def test_the_domain_is_told_by_the_stage_whose_features_help_most(
    accuracies: tuple[float, ...], domain: str, best: str | None
) -> None:
    found = facts(*accuracies)
    assert found.domain == domain
    assert (found.best.stage if found.best else None) == best


def test_figures_that_follow_from_the_counts() -> None:
    found = facts(0.5, smallest=4, largest=10)
    assert found.per_class == 7
    assert found.imbalance == 2.5
    plain = found.to_dict()
    assert plain["domain"] == "similar"
    assert plain["probes"][0]["stage"] == "stage0"

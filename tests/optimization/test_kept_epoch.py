"""The epoch whose weights a run ends with, by table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.optimization.rule_cases import case
from tl_kit.config import FinetuneConfig, GuardConfig, LoopConfig
from tl_kit.optimization.cases import AS_GIVEN, Case
from tl_kit.optimization.rules import kept_epoch
from tl_kit.optimization.schedules import multiplier

CONFIG = FinetuneConfig(model="m", data=Path("imgs"))
UNGUARDED = replace(CONFIG, guard=GuardConfig(head_guard=False))


@pytest.mark.parametrize(
    ("known", "schedule", "config", "expected", "reason"),
    [
        (case("lp-ft"), "cosine", CONFIG, "last", "decays to nothing"),
        (case("full"), "onecycle", CONFIG, "last", "decays to nothing"),
        (case("full"), "cyclic", CONFIG, "best", "does not decay"),
        (case("full"), "plateau", CONFIG, "best", "does not decay"),
        (case("full"), "cosine", replace(CONFIG, select="accuracy"), "best", "is given"),
        (case("full"), "cosine", replace(CONFIG, patience=3), "best", "is given"),
        (case("full"), "cosine", replace(CONFIG, select="nll", keep_epoch="last"), "last", AS_GIVEN),
        (case("full"), "constant", replace(CONFIG, keep_epoch="last"), "last", AS_GIVEN),
        (case("full"), "cosine", replace(CONFIG, keep_epoch="best"), "best", AS_GIVEN),
        (case("lp-ft"), "cosine", UNGUARDED, "best", "fitted head"),
        (case("full"), "cosine", UNGUARDED, "last", "decays to nothing"),
        (case("lp-ft", pretrained=False), "cosine", CONFIG, "best", "fitted head"),
    ],
)
def test_the_kept_epoch_by_table(
    known: Case, schedule: str, config: FinetuneConfig, expected: str, reason: str
) -> None:
    found = kept_epoch(known, schedule, config)
    assert found.value == expected
    assert reason in found.reason


@pytest.mark.parametrize("schedule", LoopConfig().decays_to_nothing)
def test_these_schedules_end_near_nothing(schedule: str) -> None:
    """The mean rate of the last twentieth of a run is below a tenth of the highest; it falls all through that time."""
    rates = [multiplier(schedule, step, total_steps=200) for step in range(200)]
    assert sum(rates[-10:]) / 10 < 0.1 * max(rates)
    assert rates[-10:] == sorted(rates[-10:], reverse=True)

"""Prices of steps: what must still fit into the time after a step is reckoned with before it begins."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tl_kit
from tests.fitting.test_ladder import CONFIG, networks
from tests.fitting.test_refits import FULL, entry_of, manifest_of
from tl_kit.config import BudgetConfig
from tl_kit.fitting import prices as prices_module
from tl_kit.fitting.budget import Budget
from tl_kit.fitting.ladder import Step
from tl_kit.fitting.prices import FIXED, Admission, Prices
from tl_kit.fitting.speed import Speed
from tl_kit.planning.head_passes import HeadPasses
from tl_kit.planning.price import Price
from tl_kit.reporting import SILENT

HEAD = replace(entry_of(Step("head", "small"), name="01"), speed=Speed(latency=1000.0, row=1.0))


def admission(step: Step, *, tests: int, monkeypatch: pytest.MonkeyPatch) -> Admission:
    """Of a fit that has 100 s left. A trial says 70 s and four epochs; an image takes a second to predict."""
    monkeypatch.setattr(prices_module, "price_of", lambda *_, **options: Price(policy="full", epochs=4, seconds=70.0))
    budget = Budget(103.0, 0.0, 3.0, clock=lambda: 0.0)
    prices = Prices(networks("small"), manifest_of(30, 10), budget, BudgetConfig(), CONFIG, tests=tests)
    return prices.admit(step, tl_kit.FinetuneConfig(model="small", data=Path("imgs")), [HEAD], SILENT)


@pytest.mark.parametrize(("tests", "expected"), [(0, (True, 4)), (10, (True, 4)), (20, (True, 3)), (60, (False, None))])
def test_a_run_leaves_time_to_predict_the_test_images(
    tests: int, expected: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """70 s with a margin of a quarter are 87.5; each test image takes 1.15 s of the 100."""
    found = admission(FULL, tests=tests, monkeypatch=monkeypatch)
    assert found.admitted is expected[0]
    if found.admitted:
        assert found.epochs == expected[1]


def test_a_member_that_cannot_be_shortened_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    member = replace(FULL, rung="member")
    assert admission(member, tests=10, monkeypatch=monkeypatch).admitted
    assert not admission(member, tests=20, monkeypatch=monkeypatch).admitted


@pytest.mark.parametrize(
    ("needed", "left", "text"),
    [(12.4, 3.2, "needs about 12 s, 3 s are left"), (3.3, 2.8, "needs about 3.3 s, 2.8 s are left")],
)
def test_what_is_needed_is_not_said_to_be_there(needed: float, left: float, text: str) -> None:
    assert Admission(admitted=False, needed=needed).why_not(FULL, left) == text


def test_a_step_is_late_by_its_own_estimate_alone() -> None:
    step = Admission(admitted=True, seconds=10.0)
    assert (step.overrun(11.0), step.overrun(9.0)) == ("it took longer than its estimate", "the time was over")
    assert Admission(admitted=True).overrun(99.0) == "the time was over"


def test_images_in_the_cache_cost_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second network's head of 40 images at a second each does not fit into 30 s, but does if the cache has 25."""
    networks_of_one_size = [replace(each, cost=networks("small")[0].cost) for each in networks("small", "other")]
    budget = Budget(33.0, 0.0, 3.0, clock=lambda: 0.0)
    prices = Prices(networks_of_one_size, manifest_of(30, 10), budget, BudgetConfig(), CONFIG)
    asked = (
        Step("head", "other", 0, "center"),
        tl_kit.FinetuneConfig(model="other", data=Path("imgs")),
        [HEAD],
        SILENT,
    )
    for train, expected in ((30, False), (5, True)):
        found = HeadPasses(row=1.0, train=train, val=10, compared=0, own="center")
        monkeypatch.setattr(prices_module, "head_passes", lambda *_, found=found, **options: found)
        admitted = prices.admit(*asked)
        assert (admitted.admitted, admitted.seconds) == (expected, FIXED + train + 10)

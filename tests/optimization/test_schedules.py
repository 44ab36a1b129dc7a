"""Schedules: closed forms, properties that hold for all of them, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tl_kit.errors import ConfigError
from tl_kit.optimization.schedules import (
    create_schedule,
    cycle_ends,
    multiplier,
    parse_schedule_options,
    plateau_multiplier,
    schedule_names,
)

T = 100
NAMES = schedule_names()


def ours(name: str, options: Mapping[str, object] | None = None, *, warmup: int = 0, steps: int = T) -> list[float]:
    schedule = create_schedule(name, total_steps=steps, warmup_steps=warmup, options=options)
    return [schedule(step) for step in range(steps)]


def test_all_of_the_lecture_are_there() -> None:
    wanted = "constant step multistep exponential inverse cosine linear poly onecycle cyclic wsd plateau"
    assert set(NAMES) == set(wanted.split())


@pytest.mark.parametrize(
    ("name", "options", "form"),
    [
        ("constant", {}, lambda p: 1.0),
        ("exponential", {"k": 3.0}, lambda p: math.exp(-3 * p)),
        ("inverse", {"k": 4.0}, lambda p: 1 / (1 + 4 * p)),
        ("cosine", {}, lambda p: math.cos(math.pi * p / 2) ** 2),
        ("linear", {"floor": 0.1}, lambda p: 1 - 0.9 * p),
        ("poly", {"power": 2.0}, lambda p: (1 - p) ** 2),
        ("cyclic", {"cycles": 4}, lambda p: math.cos(math.pi * (p * 4 % 1) / 2) ** 2),
        ("wsd", {"decay": 0.25, "shape": "linear"}, lambda p: min(1.0, 4 * (1 - p))),
    ],
)
def test_closed_forms(name: str, options: dict[str, object], form: Callable[[float], float]) -> None:
    assert ours(name, options) == pytest.approx([form(t / T) for t in range(T)], abs=1e-12)


@pytest.mark.parametrize("total", [1, 2, 3, 5, 7, 64])
@pytest.mark.parametrize("name", NAMES)
def test_short_runs_have_finite_rates_of_at_most_one(name: str, total: int) -> None:
    rates = ours(name, steps=total)
    assert all(0 <= rate <= 1 for rate in rates)
    assert max(rates) > 0


@pytest.mark.parametrize("name", NAMES)
def test_past_the_end_the_rate_stays_finite_and_low(name: str) -> None:
    past = multiplier(name, 10 * T, total_steps=T)
    assert past == multiplier(name, T, total_steps=T)
    assert 0 <= past <= 1


@given(
    name=st.sampled_from([name for name in NAMES if name not in ("onecycle", "cyclic")]),
    total=st.integers(2, 500),
    data=st.data(),
)
def test_decays_never_rise_after_the_warm_up(name: str, total: int, data: st.DataObject) -> None:
    warmup = data.draw(st.integers(0, total - 1))
    rates = ours(name, warmup=warmup, steps=total)
    assert rates[: warmup + 1] == sorted(rates[: warmup + 1])
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)


@given(total=st.integers(1, 400), cycles=st.integers(1, 12), warmup=st.integers(0, 50))
def test_cycle_ends_are_where_the_cyclic_rate_is_lowest(total: int, cycles: int, warmup: int) -> None:
    total += warmup
    options = {"cycles": cycles}
    ends = cycle_ends(total_steps=total, warmup_steps=warmup, options=options)
    rates = ours("cyclic", options, warmup=warmup, steps=total)
    assert ends[-1] == total - 1
    assert len(ends) <= cycles
    begin = warmup
    for end in ends:
        assert rates[begin] == 1.0
        assert rates[end] == min(rates[begin : end + 1])
        begin = end + 1


def test_plateau_follows_its_history_and_not_the_step() -> None:
    schedule = create_schedule("plateau", total_steps=T, warmup_steps=4, options={"patience": 1})
    assert [schedule(step) for step in range(4)] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert schedule(50) == schedule(50, [0.9, 0.8, 0.7]) == 1.0
    assert schedule(50, [0.7, 0.7, 0.7]) == pytest.approx(0.1)
    assert multiplier("plateau", 50, total_steps=T, options={"patience": 1}, history=[0.7] * 3) == pytest.approx(0.1)


def test_a_metric_that_is_no_number_counts_as_no_improvement() -> None:
    assert plateau_multiplier([math.nan] * 3, options={"patience": 2}) == pytest.approx(0.1)
    assert plateau_multiplier([-1.0, -1.0, -1.0], options={"patience": 1}) == pytest.approx(0.1)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "plateau"])
def test_only_plateau_looks_at_the_history(name: str) -> None:
    schedule = create_schedule(name, total_steps=T)
    assert schedule(60, [1.0] * 50) == schedule(60)


@pytest.mark.parametrize(
    ("name", "pairs", "values"),
    [
        ("step", ["every=0.25", "gamma=0.5"], {"every": 0.25, "gamma": 0.5}),
        ("multistep", ["milestones=0.6,0.8,0.95"], {"milestones": (0.6, 0.8, 0.95)}),
        ("cyclic", ["cycles=3"], {"cycles": 3}),
        ("wsd", ["shape=linear"], {"shape": "linear"}),
    ],
)
def test_options_are_read_in_their_types(name: str, pairs: list[str], values: dict[str, object]) -> None:
    assert parse_schedule_options(name, pairs) == values
    assert ours(name, values) != ours(name)


@pytest.mark.parametrize(
    ("name", "pair", "message"),
    [
        ("step", "gama=0.5", "has no option 'gama', did you mean 'gamma'"),
        ("constant", "gamma=0.5", "has no options"),
        ("step", "every=0", "above 0 and at most 1"),
        ("step", "gamma=1.5", "above 0 and at most 1"),
        ("multistep", "milestones=0.5,1.5", "above 0 and below 1"),
        ("cosine", "floor=-0.1", "between 0 and 1"),
        ("cyclic", "cycles=0", "at least 1"),
        ("cyclic", "cycles=2.5", "a whole number"),
        ("wsd", "shape=square", "one of 1-sqrt, linear, cosine"),
        ("poly", "power=0", "above 0"),
        ("plateau", "mode=min", "has no option 'mode'"),
        ("plateau", "factor=1", "above 0 and below 1"),
        ("cosin", "floor=0.1", "unknown schedule 'cosin', did you mean 'cosine'"),
    ],
)
def test_wrong_options_are_errors_with_one_clear_line(name: str, pair: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse_schedule_options(name, [pair])
    assert "\n" not in str(caught.value)


def test_runs_that_cannot_be_are_errors() -> None:
    with pytest.raises(ConfigError, match="at least one step"):
        create_schedule("cosine", total_steps=0)
    for warmup in (-1, 10, 11):
        with pytest.raises(ConfigError, match="warm-up"):
            create_schedule("cosine", total_steps=10, warmup_steps=warmup)
    with pytest.raises(ConfigError, match="its own warm-up"):
        create_schedule("onecycle", total_steps=10, warmup_steps=1)
    with pytest.raises(ConfigError, match="no step -1"):
        create_schedule("cosine", total_steps=10)(-1)

"""``fit`` keeps to its time: what does not fit is not begun, or is made shorter, and more time goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tl_kit
from tests.fitting.short_fits import LADDER, config, stopped_at
from tests.helpers import Listener
from tl_kit.errors import ConfigError
from tl_kit.fitting import climb, prices
from tl_kit.fitting import fit as fit_module
from tl_kit.fitting.budget import Budget, OutOfTimeError
from tl_kit.planning.price import Price

pytestmark = pytest.mark.usefixtures("own_cache", "short_runs", "plain_pictures", "same_speed")


class Wall:
    """A clock that only moves when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    clock = Wall()
    monkeypatch.setattr(fit_module, "Budget", lambda *args: Budget(*args, clock=clock))
    return clock


def slow(monkeypatch: pytest.MonkeyPatch, wall: Wall, seconds: Callable[[str], float]) -> None:
    """Each run takes so many seconds of the wall, by its policy."""
    original = climb.finetune_on

    def waiting(manifest: Any, options: Any, **more: Any) -> Any:
        found = original(manifest, options, **more)
        wall.now += seconds(options.policy)
        return found

    monkeypatch.setattr(climb, "finetune_on", waiting)
    monkeypatch.setattr(prices, "price_of", lambda *args, **options: Price(policy="full", epochs=4, seconds=100.0))


def test_what_does_not_fit_is_not_begun(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wall: Wall
) -> None:
    slow(monkeypatch, wall, lambda policy: 5.0)
    result = tl_kit.fit(config(data, tmp_path / "out", time=60))
    assert [row.status for row in result.leaderboard] == [*["finished"] * 3, *["no time"] * 3, "finished"]
    assert result.leaderboard[-1].what == "head on another crop"
    assert "needs about" in result.stopped
    assert wall.now <= 60


def test_a_run_in_full_takes_fewer_epochs_where_time_is_short(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wall: Wall
) -> None:
    slow(monkeypatch, wall, lambda policy: 5.0 if policy == "head" else 90.0)
    result = tl_kit.fit(config(data, tmp_path / "out", time=140))
    full = next(row for row in result.leaderboard if row.what == "training in full")
    assert (full.status, full.epochs) == ("finished", 3)  # of 4: 127 s are left, and 150 s would be needed
    assert result.test is not None


def test_the_last_layers_train_where_all_of_them_take_too_long(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wall: Wall
) -> None:
    """The last layers' price is asked for by the rules' own threshold, and nothing else trains."""
    slow(monkeypatch, wall, lambda policy: 5.0)

    def price(manifest: Any, options: Any, **more: Any) -> Price:
        part = options.auto.last_groups_from == 0
        return Price(policy="lp-ft:1" if part else "full", epochs=4, seconds=20.0 if part else 500.0)

    monkeypatch.setattr(prices, "price_of", price)
    result = tl_kit.fit(config(data, tmp_path / "out", time=60))
    last = [row for row in result.leaderboard if row.rung not in ("head", "view")][-1]
    expected = ("training of the last layers", "finished", "lp-ft:1", 4)
    assert (last.what, last.status, last.policy, last.epochs) == expected
    assert wall.now <= 60


@pytest.mark.parametrize(
    ("time", "steps"),
    [
        (200, [("full", "finished")]),
        (60, [("full", "no time"), ("part", "finished")]),
        (16, [("full", "no time"), ("part", "no time")]),
    ],
)
def test_a_network_whose_last_layers_have_dropped_what_matters_trains_early(
    time: float,
    steps: list[tuple[str, str]],
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wall: Wall,
) -> None:
    """In full before the second head, else in part; and where neither fits, the second head follows all the same."""
    slow(monkeypatch, wall, lambda policy: 5.0)

    def price(manifest: Any, options: Any, **more: Any) -> Price:
        part = options.auto.last_groups_from == 0
        return Price(policy="lp-ft:1" if part else "full", epochs=4, seconds=20.0 if part else 100.0)

    monkeypatch.setattr(prices, "price_of", price)
    monkeypatch.setattr(climb, "earlier_stages_add", lambda *_, **options: True)
    result = tl_kit.fit(config(data, tmp_path / "out", time=time))
    words = {"head": "head", "full": "training in full", "part": "training of the last layers"}
    expected = [("head", "finished"), *steps, ("head", "finished")]
    rows = [(row.what, row.status) for row in result.leaderboard]
    assert rows[: len(expected)] == [(words[rung], status) for rung, status in expected]
    assert wall.now <= time


def test_early_training_that_was_interrupted_goes_on_as_it_began(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is asked or priced again, and it comes before the head that waits."""

    def price(manifest: Any, options: Any, **more: Any) -> Price:
        part = options.auto.last_groups_from == 0
        return Price(policy="lp-ft:1" if part else "full", epochs=2, seconds=20.0 if part else 1e6)

    monkeypatch.setattr(prices, "price_of", price)
    monkeypatch.setattr(climb, "earlier_stages_add", lambda *_, **options: True)
    with stopped_at(monkeypatch, 1, KeyboardInterrupt()), pytest.raises(KeyboardInterrupt):
        tl_kit.fit(config(data, tmp_path / "out", time=1000))
    monkeypatch.setattr(climb, "earlier_stages_add", lambda *_, **options: pytest.fail("asked again"))
    original, views = climb.finetune_on, []

    def watched(manifest: Any, options: Any, **more: Any) -> Any:
        views.append(options.cache.default_views)
        return original(manifest, options, **more)

    monkeypatch.setattr(climb, "finetune_on", watched)
    result = tl_kit.resume_fit(tmp_path / "out")
    found = [(row.what, row.policy) for row in result.leaderboard if row.status == "finished"][:3]
    assert found == [("head", "head"), ("training of the last layers", "lp-ft:1"), ("head", "head")]
    assert views[0] == LADDER.part_views


def test_more_time_goes_on_where_it_ended(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wall: Wall
) -> None:
    slow(monkeypatch, wall, lambda policy: 5.0)
    short = tl_kit.fit(config(data, tmp_path / "out", time=40))
    longer = tl_kit.resume_fit(tmp_path / "out", time="1h")
    heads = [row.name for row in short.leaderboard if row.accuracy is not None]
    assert [row.name for row in longer.leaderboard if row.accuracy is not None][: len(heads)] == heads
    assert len([row for row in longer.leaderboard if row.accuracy is not None]) > len(heads)


def test_a_run_that_takes_too_long_is_dropped(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with stopped_at(monkeypatch, 1, OutOfTimeError()):
        result = tl_kit.fit(config(data, tmp_path / "out"))
    assert result.leaderboard[1].status == "out of time"
    assert not (tmp_path / "out" / "runs" / result.leaderboard[1].name).exists()


def test_a_time_too_short_for_anything_is_said(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with stopped_at(monkeypatch, 0, OutOfTimeError()), pytest.raises(ConfigError, match="too short for a first head"):
        tl_kit.fit(config(data, tmp_path / "out", models=f"local-dir:{data.parent / 'a'}", time=1000))


@pytest.mark.parametrize(
    ("models", "seconds", "time", "last"),
    [
        (1, 100.0, 50, "a fit with higher limits begins anew"),
        (2, 60.0, 50, "no result is within the limits yet; tlkit fit --resume"),
    ],
    ids=["all were tried", "one was not"],
)
def test_beyond_the_limits_it_goes_on_only_where_a_network_is_left(
    models: int,
    seconds: float,
    time: float,
    last: str,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wall: Wall,
) -> None:
    slow(monkeypatch, wall, lambda policy: seconds)
    names = ",".join(f"local-dir:{data.parent / name}" for name in ("a", "b")[:models])
    listener = Listener()
    with pytest.raises(ConfigError, match="no network is within --max-latency"):
        tl_kit.fit(config(data, tmp_path / "out", models=names, time=time, max_latency=1e-6), reporter=listener)
    assert last in listener.messages[-1]


def test_a_resumed_fit_without_time_for_a_step_leaves_the_result_as_it_was(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wall: Wall
) -> None:
    """The test images are not read again. The networks are those of before, and nobody named them."""
    slow(monkeypatch, wall, lambda policy: 5.0)
    tl_kit.fit(config(data, tmp_path / "out", time=60))
    before = (tmp_path / "out" / "fit.json").read_bytes()
    listener = Listener()
    with pytest.raises(ConfigError, match=r"--time 2: is too short; \d+ s pass beside the steps; give more"):
        tl_kit.resume_fit(tmp_path / "out", time="2s", reporter=listener)
    assert (tmp_path / "out" / "fit.json").read_bytes() == before
    longer = tl_kit.resume_fit(tmp_path / "out", time="5m", reporter=listener)
    assert longer.test is not None
    assert longer.test["readings"] == 2
    networks = [line for line in listener.messages if line.startswith("network ")]
    assert networks
    assert all(line.endswith("; as before") for line in networks)
    numbers = [int(line.split()[1].rstrip(":")) for line in listener.messages if line.startswith("step ")]
    assert numbers == [int(row.name.partition("-")[0]) for row in longer.leaderboard if row.name][-len(numbers) :]

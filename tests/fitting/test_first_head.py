"""A first head that would take too long: it is judged by its pace, and a head of fewer training images follows."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tl_kit
from tests.fitting.short_fits import config, stopped_at
from tests.fitting.test_budget import Clock
from tests.helpers import Listener
from tl_kit.config import BudgetConfig, CacheConfig, FitConfig
from tl_kit.data.manifest import Manifest, Sample
from tl_kit.errors import ConfigError
from tl_kit.finetuning import trunk_reuse
from tl_kit.finetuning.preparation import training_images
from tl_kit.fitting import fit as fit_module
from tl_kit.fitting import speed
from tl_kit.fitting.budget import Budget
from tl_kit.fitting.first_head import FirstHead, Pace, TooSlowError, sampled
from tl_kit.fitting.ladder import Step
from tl_kit.fitting.prices import FIXED
from tl_kit.fitting.speed import Speed
from tl_kit.fitting.step_options import options_of
from tl_kit.reporting import SILENT

pytestmark = pytest.mark.usefixtures("own_cache", "short_runs", "plain_pictures", "same_speed")
HEAD = Step("head", "net")
FITS = 0.3


def manifest_of(train: int = 60, val: int = 20, tests: int = 20) -> Manifest:
    samples = [
        Sample(path=Path(f"{split}{number}.png"), label=2 * number // count, split=split, digest=f"{split}{number:020}")
        for split, count in (("train", train), ("val", val), ("test", tests))
        for number in range(count)
    ]
    return Manifest(root=Path("imgs"), classes=("a", "b"), samples=tuple(samples))


def paced(seconds: float | None, train: int = 60) -> tuple[Clock, Pace]:
    clock = Clock()
    pace = Pace(SILENT, Budget(seconds, clock=clock), val=20, tests=20, evidence=0.1)
    pace.begin(train)
    return clock, pace


def passes(clock: Clock, pace: Pace, stage: str, images: int, row: float, batch: int = 10) -> None:
    """A stage over so many images, of ``row`` seconds each."""
    pace.start(stage, images)
    for _ in range(images // batch):
        clock.now += batch * row
        pace.advance(batch)


def whole(clock: Clock, pace: Pace, decode: float, row: float) -> None:
    """The passes of a head over 60 training images and 20 of val."""
    for split, images in {"train": 60, "val": 20}.items():
        passes(clock, pace, "decode", images, decode)
        passes(clock, pace, f"features {split}", images, row)


def test_a_head_in_time_is_left_alone() -> None:
    """100 images, those of test among them, at 0.1 s to decode and 0.4 s to pass, and the fits of 60."""
    clock, pace = paced(FIXED + 100 * 0.5 + FITS * 60 * 0.5 + 0.01)
    whole(clock, pace, 0.1, 0.4)
    assert pace.row == pytest.approx(0.5)


def test_a_head_out_of_time_ends_once_a_tenth_of_the_time_has_shown_its_pace() -> None:
    clock, pace = paced(40)
    passes(clock, pace, "decode", 60, 0.1)  # 6 s of 40: decoding alone would be done in 10
    with pytest.raises(TooSlowError) as caught:
        passes(clock, pace, "features train", 60, 0.4)
    assert clock.now == 1006 + 4  # after one batch, which has taken long
    assert caught.value.needed == pytest.approx(FIXED + 0.4 * (50 + 40) + 0.1 * 40 + FITS * 60 * 0.5)
    assert caught.value.left == pytest.approx(30)


def test_slow_decoding_is_seen_before_the_network_has_run() -> None:
    clock, pace = paced(40)
    with pytest.raises(TooSlowError):
        passes(clock, pace, "decode", 60, 1.0, batch=1)
    assert clock.now == 1004


def test_a_first_batch_that_chooses_kernels_is_not_the_pace() -> None:
    clock, pace = paced(1000)
    pace.start("features train", 60)
    clock.now += 50  # 5 s an image
    pace.advance(10)
    assert pace.row == 0
    passes(clock, pace, "features train", 50, 0.4)
    assert pace.row == pytest.approx(0.4)


def test_images_in_the_cache_are_not_counted() -> None:
    """Ten of the training images lack; no validation image counts twice once its own pass is at work."""
    clock, pace = paced(FIXED + (10 + 20 + 20) * 0.5 + FITS * 60 * 0.5 + 0.01)
    passes(clock, pace, "features train", 10, 0.5)
    passes(clock, pace, "features val", 20, 0.5)
    assert clock.now == 1015


def test_without_a_limit_no_head_is_too_slow() -> None:
    clock, pace = paced(None)
    passes(clock, pace, "features train", 1000, 1e6)


def first_head(seconds: float, **options: Any) -> tuple[Clock, FirstHead]:
    clock = Clock()
    fit = FitConfig(data=Path("imgs"), **options)
    return clock, FirstHead(SILENT, Budget(seconds, clock=clock), fit, manifest_of(100))


def too_slow(clock: Clock, first: FirstHead, *, decode: float = 0.0, row: float = 1.0) -> TooSlowError:
    pace = first.try_it(HEAD)
    assert isinstance(pace, Pace)
    with pytest.raises(TooSlowError) as caught:
        passes(clock, pace, "features train", 100, row)
    return caught.value


def test_the_sample_fits_into_the_time_with_a_margin() -> None:
    clock, first = first_head(100)
    assert first.sample() is None
    note = first.shrink(HEAD, too_slow(clock, first))
    left = 100 - (clock.now - 1000)
    step = first.sample()
    assert step is not None
    assert (step.rung, step.trains) == ("sample", False)
    seconds = [BudgetConfig.first_margin * (FIXED + 40 + (1 + FITS) * n) for n in (step.images, step.images + 1)]
    assert seconds[0] <= left < seconds[1]
    assert note.startswith("needs about")
    assert first.sample() is None  # once


@pytest.mark.parametrize(("size_gb", "kept"), [(8.0, 20), (0.0, 0)])
def test_what_the_cache_keeps_of_a_pass_is_not_computed_again(size_gb: float, kept: float) -> None:
    """A pass of 100 images in batches of 10 writes files of 20. The one at work is lost when the pass is cut short."""
    clock, first = first_head(100, cache=CacheConfig(size_gb=size_gb))
    pace = first.try_it(HEAD)
    assert isinstance(pace, Pace)
    pace.start("features train", 100)
    for _ in range(3):
        clock.now += 1
        pace.advance(10)
    clock.now += 20
    with pytest.raises(TooSlowError) as caught:
        pace.advance(10)
    first.shrink(HEAD, caught.value)
    step, left, row = first.sample(), 100 - 23, 22 / 30
    assert pace.row == pytest.approx(row)
    assert step is not None
    each = (1 + FITS - kept / 100) * row
    assert step.images == int((left / BudgetConfig.first_margin - FIXED - 40 * row) / each)


def test_a_second_sample_is_smaller_than_the_first() -> None:
    clock, first = first_head(100)
    first.shrink(HEAD, too_slow(clock, first))
    one = first.sample()
    assert one is not None
    first.shrink(one, TooSlowError(50, 49))
    two = first.sample()
    assert two is not None
    assert two.images <= 0.8 * one.images


def test_where_validation_and_test_images_alone_take_too_long_the_least_time_is_told() -> None:
    clock, first = first_head(40)
    note = first.shrink(HEAD, too_slow(clock, first))
    assert first.sample() is None
    assert "with 4 training images about 58 s" in note  # 1.25 * (1.5 + 1.3 * 4 + 20 + 20)


def test_a_sample_has_all_classes_in_proportion_and_all_other_images() -> None:
    images = manifest_of(100)
    part = sampled(images, 30, seed=0)
    assert sampled(images, 30, seed=0) == part
    assert part.split("val") == images.split("val")
    assert part.split("test") == images.split("test")
    counts = Counter(sample.label for sample in part.split("train"))
    assert set(counts.values()) == {30 // len(images.classes)}
    assert Counter(s.label for s in sampled(images, 1, seed=0).split("train")) == dict.fromkeys(counts, 2)


class Slow:
    """Every image that passes a network's trunk takes a second of the clock; nothing else takes time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.images = 0.0, 0
        original = trunk_reuse.forward_rows
        monkeypatch.setattr(fit_module, "Budget", lambda *args: Budget(*args, clock=lambda: self.now))

        def slow(trunk: Any, images: Any, **options: Any) -> Any:
            if images.ndim == 4:  # pixels, and no features of them
                self.now += len(images)
                self.images += len(images)
            return original(trunk, images, **options)

        monkeypatch.setattr(trunk_reuse, "forward_rows", slow)
        monkeypatch.setattr(speed, "measure_speed", lambda *_: Speed(latency=1000.0, row=1.0))


def splits(data: Path) -> dict[str, int]:
    scanned = training_images(options_of(config(data, Path("out"))), SILENT)
    return {split: len(scanned.split(split)) for split in ("train", "val", "test")}


def short_of_time(data: Path, out: Path, **options: Any) -> FitConfig:
    """Two networks, batches of four images. 36 training images, and 12 of val and test, need 60 s, and 11 for fits."""
    assert splits(data) == {"train": 36, "val": 12, "test": 12}
    own = config(data, out, cache=CacheConfig(directory=out.with_name(f"{out.name}-cache")), **options)
    return replace(own, runtime=replace(own.runtime, batch_size=4))


def test_a_fit_without_time_for_all_images_ends_in_time_with_a_head_of_some(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Slow(monkeypatch)
    listener = Listener()
    fitted = tl_kit.fit(short_of_time(data, tmp_path / "out", time=60), reporter=listener)
    assert fitted.seconds <= 60
    first, second, *others = fitted.leaderboard
    assert (first.rung, first.status) == ("head", "no time")
    assert (second.rung, second.status, second.chosen) == ("sample", "finished", True)
    assert {row.status for row in others} == {"no time"}
    assert fitted.stopped == "there is no time for a head on all training images"
    assert fitted.test is not None
    assert any("head of a sample of the training images: 1" in line for line in fitted.story)
    said = " ".join(listener.messages)
    asked, fitted_to = (
        re.search(r"head of \S+ on (\d+) training images", said),
        re.search(r"to the (\d+) training", said),
    )
    assert asked is not None
    assert fitted_to is not None
    assert 6 <= int(asked[1]) < 36
    assert abs(int(fitted_to[1]) - 12 - int(asked[1])) <= 1  # the refit of the head sees the validation images too


def test_more_time_goes_on_with_heads_of_all_images(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The resumed fit tries again what had no time. The head of a sample is no member beside the same on all images."""
    with monkeypatch.context() as patch:
        Slow(patch)
        short = tl_kit.fit(short_of_time(data, tmp_path / "out", time=60))
    longer = tl_kit.resume_fit(short.folder, time=600)
    rows = {row.name: row for row in longer.leaderboard if row.status == "finished"}
    assert {"sample", "head"} <= {row.rung for row in rows.values()}
    assert all(rows[name].rung != "sample" for name in longer.members)
    assert any(row.rung == "sample" and row.accuracy is None for row in rows.values())


def test_a_fit_whose_sample_was_interrupted_goes_on_with_the_same(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        Slow(patch)
        whole = tl_kit.fit(short_of_time(data, tmp_path / "whole", time=60))
        with stopped_at(patch, 1, KeyboardInterrupt()), pytest.raises(KeyboardInterrupt):
            tl_kit.fit(short_of_time(data, tmp_path / "cut", time=60))
    monkeypatch.undo()
    Slow(monkeypatch)
    again = tl_kit.resume_fit(tmp_path / "cut")
    assert [row.what for row in again.leaderboard if row.chosen] == [
        row.what for row in whole.leaderboard if row.chosen
    ]
    assert again.val == whole.val
    assert again.test is not None
    assert whole.test is not None
    assert again.test["nll"] == whole.test["nll"]


def test_time_for_no_head_at_all_says_how_much_is_needed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Slow(monkeypatch)
    with pytest.raises(ConfigError, match=r"--time 20: .*; with 6 training images about \d+ s\); give more"):
        tl_kit.fit(short_of_time(data, tmp_path / "out", time=20))
    assert clock.now <= 20
    assert not (tmp_path / "out").exists()

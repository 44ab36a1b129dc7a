"""The first head of a fit: where the time does not allow a pass over all images, a head of fewer comes first."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

import tl_kit
from tests.fitting.short_fits import config, stopped_at
from tests.helpers import Listener
from tl_kit.config import BudgetConfig, CacheConfig, FinetuneConfig, FitConfig
from tl_kit.data.manifest import Manifest, Sample
from tl_kit.errors import ConfigError, DataError
from tl_kit.finetuning import trunk_reuse
from tl_kit.finetuning.preparation import training_images
from tl_kit.fitting import first_head, speed
from tl_kit.fitting import fit as fit_module
from tl_kit.fitting.budget import Budget
from tl_kit.fitting.first_head import FirstHead, sampled
from tl_kit.fitting.ladder import Step
from tl_kit.fitting.prices import FIXED, Admission
from tl_kit.fitting.speed import Speed
from tl_kit.fitting.step_options import options_of
from tl_kit.planning.head_passes import HeadPasses, head_passes
from tl_kit.reporting import SILENT

pytestmark = pytest.mark.usefixtures("own_cache", "short_runs", "plain_pictures", "same_speed")
FITS = BudgetConfig.fits + 2 * BudgetConfig.fits_class  # of two classes
MARGIN = BudgetConfig.first_margin
NEW = HeadPasses(row=1.0, train=100, val=20, compared=0, own="center")


def manifest_of(*counts: int, val: int = 20, tests: int = 20) -> Manifest:
    """So many training images of each class; those of val and test are of the first."""
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    samples = [
        Sample(path=Path(f"{split}{number}.png"), label=label, split=split, digest=f"{split}{number:020}")
        for split, found in (("train", labels), ("val", [0] * val), ("test", [0] * tests))
        for number, label in enumerate(found)
    ]
    return Manifest(root=Path("imgs"), classes=tuple("abcdefgh"[: len(counts)]), samples=tuple(samples))


def admitted(
    monkeypatch: pytest.MonkeyPatch, seconds: float | None, passes: HeadPasses | None = NEW, *counts: int
) -> Admission:
    monkeypatch.setattr(first_head, "head_passes", lambda *_, **options: passes)
    first = FirstHead(manifest_of(*(counts or (50, 50))), Budget(seconds, clock=lambda: 0.0), BudgetConfig())
    return first.admit(FinetuneConfig(model="net", data=Path("imgs")), SILENT)


def test_a_head_begins_where_all_its_images_have_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """100 training images, 20 of val and, at the end, 20 of test, at a second each; and the fits."""
    needed = MARGIN * (FIXED + 140 + FITS * 100)
    assert admitted(monkeypatch, needed + 0.01).admitted
    assert not admitted(monkeypatch, needed - 0.01).admitted
    assert admitted(monkeypatch, needed + 0.01).seconds == pytest.approx(FIXED + 120 + FITS * 100)


def test_the_sample_is_the_largest_that_has_time(monkeypatch: pytest.MonkeyPatch) -> None:
    found = admitted(monkeypatch, 100.0)
    assert not found.admitted
    seconds = [MARGIN * (FIXED + 40 + (1 + FITS) * n) for n in (found.sample, found.sample + 2)]  # one of each class
    assert seconds[0] <= 100 < seconds[1]
    assert found.sample % 2 == 0


def test_where_a_second_crop_mode_has_no_time_the_head_takes_the_networks_own(monkeypatch: pytest.MonkeyPatch) -> None:
    compared, first = replace(NEW, compared=100), Step("head", "net", 3)
    seconds = MARGIN * (FIXED + 140 + FITS * 100) + 0.01
    found = admitted(monkeypatch, seconds, compared)
    assert not found.admitted
    assert found.smaller(first) == replace(first, crop_mode="center")
    assert found.why_not(first, seconds).startswith("needs about 316 s with the comparison of crop modes")
    assert admitted(monkeypatch, seconds + MARGIN * 100, compared).admitted
    some = admitted(monkeypatch, seconds - MARGIN, compared)
    assert some.smaller(first) == replace(first, rung="sample", images=98)
    assert "crop" not in some.why_not(first, seconds)


@pytest.mark.parametrize("images", [2_500, 1_999])
def test_all_images_are_among_the_sizes_that_are_tried(images: int, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = replace(NEW, train=images, compared=100)
    fits = min(1.0, BudgetConfig.fits + BudgetConfig.fits_class)
    found = admitted(monkeypatch, MARGIN * (FIXED + images + 40 + fits * images) + 0.01, compared, images)
    assert (found.sample, found.crop_mode) == (images, "center")


def test_images_in_the_cache_cost_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    assert admitted(monkeypatch, MARGIN * (FIXED + 20 + FITS * 100) + 0.01, replace(NEW, train=0, val=0)).admitted


def test_where_no_sample_has_time_the_time_that_is_needed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    found = admitted(monkeypatch, 40.0)
    least = FIXED + 40 + (1 + FITS) * 4
    assert (found.admitted, found.sample, found.hopeless) == (False, 0, True)
    assert found.least == pytest.approx(MARGIN * least)
    assert admitted(monkeypatch, least + 0.01).sample == 4  # without a margin, rather than no result


@pytest.mark.parametrize(("seconds", "passes"), [(None, NEW), (1.0, None)])
def test_without_a_limit_or_features_nothing_is_tried(
    seconds: float | None, passes: HeadPasses | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert admitted(monkeypatch, seconds, passes).admitted


def test_a_rare_class_counts_with_its_two_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven rare classes of three images have 14 in each sample, however small it is."""
    counts = (100, *[3] * 7)
    found = admitted(monkeypatch, 90.0, replace(NEW, train=121), *counts)
    part = sampled(manifest_of(*counts), found.sample, seed=0)
    assert len(part.split("train")) == found.sample


def test_a_sample_has_all_classes_in_proportion_and_all_other_images() -> None:
    images = manifest_of(60, 40)
    part = sampled(images, 30, seed=0)
    assert sampled(images, 30, seed=0) == part
    assert part.split("val") == images.split("val")
    assert part.split("test") == images.split("test")
    assert Counter(sample.label for sample in part.split("train")) == {0: 18, 1: 12}
    assert set(part.samples) <= set(images.samples)
    assert set(sampled(images, 20, seed=0).samples) <= set(part.samples)
    assert Counter(sample.label for sample in sampled(images, 1, seed=0).split("train")) == {0: 2, 1: 2}


def test_the_trial_counts_what_the_cache_does_not_have(data: Path, tmp_path: Path) -> None:
    options = replace(
        options_of(config(data, tmp_path / "out")),
        model=f"local-dir:{data.parent / 'a'}",
        cache=CacheConfig(directory=tmp_path / "cache"),
        policy="head",
        out=tmp_path / "head",
    )
    manifest = training_images(options, SILENT)
    before = head_passes(manifest, options, reporter=SILENT)
    assert before is not None
    assert (before.train, before.val, before.compared) == (36, 12, 36)  # a centre crop hides a sixth of 40 x 48
    assert before.row > 0
    tl_kit.finetune(options)
    after = head_passes(manifest, replace(options, crop_mode="center"), reporter=SILENT)
    assert after is not None
    assert (after.train, after.val, after.compared) == (0, 0, 0)


class Slow:
    """Every image that passes a network's trunk takes a second of the clock, and the trial knows that."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.tries = 0.0, False
        original, tried = trunk_reuse.forward_rows, first_head.head_passes
        monkeypatch.setattr(fit_module, "Budget", lambda *args: Budget(*args, clock=lambda: self.now))

        def slow(trunk: Any, images: Tensor, **options: Any) -> Tensor:
            if images.ndim == 4 and not self.tries:  # pixels, and no features of them
                self.now += len(images)
            return original(trunk, images, **options)

        def trial(*args: Any, **options: Any) -> HeadPasses | None:
            self.tries = True
            found = tried(*args, **options)
            self.tries, self.now = False, self.now + 2
            return None if found is None else replace(found, row=1.0)

        monkeypatch.setattr(trunk_reuse, "forward_rows", slow)
        monkeypatch.setattr(first_head, "head_passes", trial)
        monkeypatch.setattr(speed, "measure_speed", lambda *_: Speed(latency=1000.0, row=1.0))


def short_of_time(data: Path, out: Path, **options: Any) -> FitConfig:
    """36 training images, and 12 of val and test, need 60 s, their fits 4, and 36 a second pass."""
    return config(data, out, cache=CacheConfig(directory=out.with_name(f"{out.name}-cache")), **options)


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
    assert fitted.stopped == "there is no time for a further head"
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
    assert second.what == f"head of {asked[1]} training images"
    assert int(fitted_to[1]) == int(asked[1]) + 12  # the refit of the head sees the validation images too


def test_a_fit_without_time_to_compare_crop_modes_has_a_head_of_all_images(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trial needs 2 s, a head in one crop mode 60 and its fits 4, with a margin; the comparison 36 more."""
    Slow(monkeypatch)
    listener = Listener()
    fitted = tl_kit.fit(short_of_time(data, tmp_path / "out", time=100), reporter=listener)
    first, second = fitted.leaderboard[:2]
    assert (first.rung, first.status) == ("head", "no time")
    assert (second.rung, second.status, second.network) == ("head", "finished", first.network)
    assert any("with the comparison of crop modes, " in line for line in listener.messages)
    assert not any("sample" in line for line in (*fitted.story, *listener.messages))


def test_more_time_goes_on_with_heads_of_all_images(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The resumed fit tries again what had no time. The head of a sample is no member beside the same on all images."""
    with monkeypatch.context() as patch:
        Slow(patch)
        short = tl_kit.fit(short_of_time(data, tmp_path / "out", time=60))
    listener = Listener()
    longer = tl_kit.resume_fit(short.folder, time=600, reporter=listener)
    rows = {row.name: row for row in longer.leaderboard if row.status == "finished"}
    assert {"sample", "head"} <= {row.rung for row in rows.values()}
    assert all(rows[name].rung != "sample" for name in longer.members)
    assert any(row.rung == "sample" and row.accuracy is None for row in rows.values())
    assert any(line.startswith("crop mode") for line in listener.messages)  # compared by the first head of all images


def test_a_fit_whose_sample_was_interrupted_goes_on_with_the_same(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        Slow(patch)
        whole = tl_kit.fit(short_of_time(data, tmp_path / "whole", time=60))
        with stopped_at(patch, 0, KeyboardInterrupt()), pytest.raises(KeyboardInterrupt):
            tl_kit.fit(short_of_time(data, tmp_path / "cut", time=60))
    with monkeypatch.context() as patch:
        Slow(patch)
        again = tl_kit.resume_fit(tmp_path / "cut")
    assert [row.what for row in again.leaderboard if row.chosen] == [
        row.what for row in whole.leaderboard if row.chosen
    ]
    assert again.val == whole.val
    assert again.test is not None
    assert whole.test is not None
    assert again.test["nll"] == whole.test["nll"]


def test_time_for_no_head_at_all_says_at_once_how_much_is_needed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Slow(monkeypatch)
    with pytest.raises(ConfigError, match=r"--time 20: is too short for a first head; give about \d+ s") as caught:
        tl_kit.fit(short_of_time(data, tmp_path / "out", time=20))
    assert clock.now == 2  # the trial of one network
    assert not (tmp_path / "out").exists()
    least = int(re.search(r"about (\d+) s", str(caught.value))[1])  # type: ignore[index]
    fitted = tl_kit.fit(short_of_time(data, tmp_path / "out", time=least))
    assert fitted.leaderboard[1].what == "head of 6 training images"
    assert fitted.seconds <= least


def test_a_sample_without_a_readable_image_of_a_class_fails_alone(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fit goes on with the next network, since all images together have enough."""
    Slow(monkeypatch)
    with stopped_at(monkeypatch, 0, DataError("no training image is left of 'red'")):
        fitted = tl_kit.fit(short_of_time(data, tmp_path / "out", time=60))
    rungs = [(row.rung, row.status) for row in fitted.leaderboard]
    assert rungs[:2] == [("head", "no time"), ("sample", "failed")]
    assert ("sample", "finished") in rungs

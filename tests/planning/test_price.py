"""A price costs little: a run that is surely too long is not tried, and a trial ends when its time is over."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers import MODEL, NEARLY_SQUARE, write_images
from tl_kit.config import CacheConfig, EstimateConfig, FinetuneConfig, LoopConfig, RegularizationConfig
from tl_kit.data.manifest import Manifest, labels_of, spread
from tl_kit.data.scan import scan
from tl_kit.errors import ConfigError
from tl_kit.finetuning.checks import as_head, check_policy
from tl_kit.finetuning.choices import stage_rows
from tl_kit.finetuning.choices.stage_rows import HEAD_INPUT
from tl_kit.finetuning.preparation import prepare
from tl_kit.fitting.budget import Budget, OutOfTimeError, TimedReporter
from tl_kit.fitting.refits import refit_images
from tl_kit.freezing.policies import HEAD
from tl_kit.planning import price, stage_gain
from tl_kit.planning.head_probe import probe_network
from tl_kit.planning.price import price_of
from tl_kit.planning.stage_gain import earlier_stages_add
from tl_kit.reporting import SILENT


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> FinetuneConfig:
    root = tmp_path_factory.mktemp("prices")
    return FinetuneConfig(
        model=MODEL,
        data=write_images(root / "images", images=15, size=NEARLY_SQUARE),
        weights="none",
        img_size=32,
        batch_size=8,
        loop=LoopConfig(epochs=3, least_steps=1, scratch_steps=1),
        cache=CacheConfig(directory=root / "cache"),
    )


@pytest.fixture(scope="module")
def manifest(options: FinetuneConfig) -> Manifest:
    return scan(options.data)


class Ticking:
    """A clock of which a second passes whenever somebody looks."""

    def __init__(self) -> None:
        self.seconds = itertools.count()

    def __call__(self) -> float:
        return float(next(self.seconds))


def test_a_run_that_is_surely_too_long_is_not_tried(
    options: FinetuneConfig, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each epoch of a network without a frozen trunk passes each image forward, and no faster backward."""
    monkeypatch.setattr(price, "estimate", lambda *_, **__: pytest.fail("a trial was run"))
    found = price_of(manifest, options, row=10.0, most=100.0)
    assert found.seconds == 2 * 10.0 * found.epochs * len(manifest.split("train"))
    assert not found.tried


def test_what_may_fit_is_tried(options: FinetuneConfig, manifest: Manifest) -> None:
    found = price_of(manifest, options, row=1e-9, most=100.0)
    assert found.tried
    assert found.seconds > 2 * 1e-9 * found.epochs * len(manifest.split("train"))


def test_a_refit_has_a_price(options: FinetuneConfig, manifest: Manifest) -> None:
    """It has no validation images; it is tried where its first run was interrupted, and took unknown time."""
    found = price_of(refit_images(manifest), options)
    assert found.tried
    assert found.seconds > 0


@pytest.mark.parametrize("looks", [3, 5, 8])
def test_a_trial_ends_when_its_time_is_over(looks: int, options: FinetuneConfig, manifest: Manifest) -> None:
    budget = Budget(float(looks), clock=Ticking())
    with pytest.raises(OutOfTimeError):
        price_of(manifest, options, reporter=TimedReporter(SILENT, budget))
    assert budget.clock() == looks + 1, "nobody looked again after the time was over"


def stages(labels: np.ndarray, *, early: float, late: float, scale: float = 1.0) -> dict[str, np.ndarray]:
    """Features of two stages: noise, and the classes as strongly as they say; the first one times ``scale``."""
    random = np.random.default_rng(0)
    classes = np.eye(int(labels.max()) + 1)[labels]

    def rows(strength: float) -> np.ndarray:
        noise = random.normal(size=(len(labels), 8))
        noise[:, : classes.shape[1]] += strength * classes
        return noise.astype(np.float32)

    return {"layer1": scale * rows(early), HEAD_INPUT: rows(late)}


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize(("early", "late", "expected"), [(8.0, 0.0, True), (0.0, 8.0, False), (8.0, 8.0, False)])
def test_earlier_stages_add_what_the_last_one_lacks(
    early: float,
    late: float,
    expected: bool,
    scale: float,
    options: FinetuneConfig,
    manifest: Manifest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def rows(run: Any) -> dict[str, np.ndarray]:
        return stages(labels_of(run.manifest.split("train")), early=early, late=late, scale=scale)

    monkeypatch.setattr(stage_gain, "stage_rows", rows)
    assert earlier_stages_add(manifest, options, images=1000) is expected


def test_the_stages_of_a_network_are_asked_on_some_of_the_images(
    options: FinetuneConfig, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, seen = stage_gain.stage_rows, []

    def rows(run: Any) -> Any:
        seen.append(run.manifest.split("train"))
        return original(run)

    monkeypatch.setattr(stage_gain, "stage_rows", rows)
    assert not earlier_stages_add(manifest, options, images=12), "plain colours are told apart at every stage"
    assert len(seen[0]) == 12
    assert len({sample.label for sample in seen[0]}) == len(manifest.classes)


@pytest.mark.parametrize(
    "changes",
    [
        {"augment": "strong"},
        {"augment_options": ("flip=0",)},
        {"cache": {"views": 2}},
        {"regularization": RegularizationConfig(drop_path=0.1)},
        {"loop": {"layer_decay": 0.9}},
        {"plot": True},
        {"select": "nll"},
        {"keep_epoch": "best"},
    ],
)
def test_options_that_a_head_does_not_have_are_no_hindrance(
    changes: dict[str, Any], options: FinetuneConfig, manifest: Manifest
) -> None:
    """What asks a head for its figures does so for the run that was asked for, whatever that is."""
    named = {
        name: replace(getattr(options, name), **value) if isinstance(value, dict) else value
        for name, value in changes.items()
    }
    config = replace(options, policy="auto", **named)
    with pytest.raises(ConfigError, match="--"):
        check_policy(replace(config, policy="head"), HEAD)
    check_policy(as_head(config), HEAD)
    if config.cache.views is None:  # full has none either
        assert price_of(manifest, config, row=10.0, most=1.0).policy == "full"
    assert earlier_stages_add(manifest, config, images=12) is False
    assert probe_network(manifest, config, reporter=SILENT) is None, "of random weights"


def test_augmentation_gives_a_head_no_other_features(
    options: FinetuneConfig, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rows(config: FinetuneConfig) -> Any:
        run = prepare(config, SILENT, manifest=manifest, dry=True)
        try:
            return stage_rows.stage_rows(run)
        finally:
            run.cleanup.close()

    first = rows(options)
    monkeypatch.setattr(stage_rows, "_pass", lambda *_: pytest.fail("the features are in the cache"))
    again = rows(replace(options, augment="strong", augment_options=("flip=0",)))
    assert all(np.array_equal(first[name], again[name]) for name in first)


def test_the_question_about_mirror_images_is_part_of_the_price(
    options: FinetuneConfig, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = price_of(manifest, options, row=10.0, most=1.0).seconds
    monkeypatch.setattr(price, "images_asked", lambda _: 7)
    assert price_of(manifest, options, row=10.0, most=1.0).seconds == asked + 70, "of random weights it is not asked"


def test_a_trial_of_a_rare_class_needs_none_of_its_images(options: FinetuneConfig, tmp_path: Path) -> None:
    """Two training images of 150: the trial's few have none of them, and no weight of their class is asked for."""
    data = write_images(tmp_path / "images", ("red", "blue"), images=3)
    write_images(data, ("blue",), images=200, seed=1)
    uneven = replace(options, data=data, policy="full")
    images = scan(data)
    assert {sample.label for sample in spread(images.split("train"), EstimateConfig().train_images)} == {0}
    assert price_of(images, uneven).seconds > 0

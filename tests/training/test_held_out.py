"""Out-of-fold predictions of the closed-form head, with and without a second view of each image."""

from __future__ import annotations

import numpy as np
import pytest

from tl_kit.config import ProbeConfig
from tl_kit.training.held_out import HeldOut, held_out

CONFIG = ProbeConfig(folds=4, strengths=(10.0,))
IMAGES, CLASSES = 80, 4


def drawn(strength: float) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, d) that tell the classes apart by so much, and labels."""
    random = np.random.default_rng(0)
    labels = np.arange(IMAGES) % CLASSES
    features = random.normal(size=(IMAGES, 300))
    features[:, :CLASSES] += strength * np.eye(CLASSES)[labels]
    return features.astype(np.float32), labels


def predicted(features: np.ndarray, labels: np.ndarray, also: np.ndarray | None = None) -> HeldOut:
    found = held_out(features, labels, also=also, seed=0, config=CONFIG)
    assert found is not None
    return found


def test_the_same_view_twice_changes_nothing() -> None:
    features, labels = drawn(3.0)
    once, twice = predicted(features, labels), predicted(features, labels, features)
    assert np.array_equal(twice.images, np.arange(IMAGES))
    assert twice.loss == pytest.approx(once.loss, rel=0.02)
    assert twice.share == pytest.approx(once.share)


def test_the_second_view_of_a_held_out_image_is_held_out_too() -> None:
    """Of noise, each image is known by its own copy alone."""
    features, labels = drawn(0.0)
    held = predicted(features, labels, features)
    assert held.accuracy < 0.45
    assert held.nll > 0.9 * np.log(CLASSES)


def test_second_views_of_another_class_harm_and_those_of_the_same_help() -> None:
    features, labels = drawn(3.0)
    others, fresh = features[np.roll(np.arange(IMAGES), 1)], drawn(3.0)[0] + np.float32(0.1)
    alone = predicted(features, labels, features)
    harm, error = alone.saving(predicted(features, labels, others))
    assert harm > 5 * error
    random = np.random.default_rng(1)
    fresh[:, CLASSES:] = random.normal(size=(IMAGES, 300 - CLASSES))
    harm, error = alone.saving(predicted(features, labels, fresh))
    assert harm < -2 * error


def test_a_saving_is_the_mean_of_paired_differences() -> None:
    share = np.full(4, 0.25)
    first, second = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.3, 0.2, 0.9, 0.4])
    held = [
        HeldOut(images=np.arange(4), loss=loss, right=np.zeros(4), share=share, units=np.arange(4))
        for loss in (first, second)
    ]
    saved, error = held[0].saving(held[1])
    assert saved == pytest.approx(0.2)
    assert error == pytest.approx((second - first).std(ddof=1) / 2)


def test_what_belongs_together_is_held_out_together_and_counts_once() -> None:
    """Of noise, each image is known by its copies alone; three copies of each are no further evidence."""
    features, labels = drawn(0.0)
    copies, names = np.tile(features, (3, 1)), np.tile(labels, 3)
    keys = np.tile(np.array([f"{number:03}" for number in range(IMAGES)]), 3)
    leaking = held_out(copies, names, seed=0, config=CONFIG)
    held = held_out(copies, names, keys=keys, seed=0, config=CONFIG)
    assert leaking is not None
    assert held is not None
    assert leaking.accuracy > 0.9
    assert held.accuracy < 0.45
    assert len(np.unique(held.units)) == IMAGES
    features, labels = drawn(3.0)
    others = features[np.roll(np.arange(IMAGES), 1)]
    once = predicted(features, labels, features).saving(predicted(features, labels, others))
    thrice = [
        held_out(np.tile(features, (3, 1)), names, also=np.tile(view, (3, 1)), keys=keys, seed=0, config=CONFIG)
        for view in (features, others)
    ]
    assert thrice[0] is not None
    assert thrice[1] is not None
    assert thrice[0].saving(thrice[1]) == pytest.approx(once, rel=0.25)

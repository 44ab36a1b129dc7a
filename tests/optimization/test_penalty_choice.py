"""The choice of a penalty: folds that keep together what belongs together, and no image that decides alone."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from tl_kit import metrics
from tl_kit.config import PenaltyConfig
from tl_kit.optimization.nested_choice import nested_predictions
from tl_kit.optimization.penalty_choice import Folds, OutOfFold, choose, drawn_folds, fit_path, out_of_fold
from tl_kit.optimization.softmax_regression import fit_softmax

CONFIG = PenaltyConfig(strengths=(0.1, 1.0, 10.0, 100.0, 1000.0))


def blobs(images: int, classes: int, *, noise: float, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    labels = np.arange(images) % classes
    centres = np.random.default_rng(5).normal(size=(classes, 20))
    rows = centres[labels] + noise * np.random.default_rng(seed).normal(size=(images, 20))
    return (rows - rows.mean(axis=0)).astype(np.float32), labels


def told(at_label: list[list[float]], *, strengths: tuple[float, ...]) -> OutOfFold:
    table = np.array(at_label)
    return OutOfFold(np.arange(table.shape[1]), 4, strengths, table, table > 0.5, ())


def test_folds_are_even_in_all_and_in_each_class() -> None:
    labels = np.repeat(np.arange(4), [13, 7, 5, 26])
    numbers = drawn_folds(labels, 5).numbers
    assert np.ptp(np.bincount(numbers, minlength=5)) <= 1
    for label in range(4):
        assert np.ptp(np.bincount(numbers[labels == label], minlength=5)) <= 1


def test_what_belongs_together_is_in_one_fold_and_a_class_of_one_unit_in_none() -> None:
    labels = np.array([0] * 10 + [1] * 10 + [2] + [3] * 4)
    units = np.array([*np.repeat(np.arange(5), 2), *range(5, 15), 15, 16, 16, 16, 16])
    folds = drawn_folds(labels, 5, units=units)
    for unit in range(17):
        assert len(np.unique(folds.numbers[units == unit])) == 1
    assert (folds.numbers[labels >= 2] == -1).all()
    for number in folds.held_out:
        assert set(labels[folds.numbers != number]) == {0, 1, 2, 3}


def test_folds_follow_from_the_units_and_not_from_the_classes_numbers() -> None:
    labels, units = np.repeat([0, 1, 2], [9, 8, 7]), np.random.default_rng(0).permutation(24)
    renamed = np.array([2, 0, 1])[labels]
    assert np.array_equal(drawn_folds(labels, 5, units=units).numbers, drawn_folds(renamed, 5, units=units).numbers)


def test_each_image_is_judged_by_a_fit_without_it() -> None:
    x, y = blobs(50, 3, noise=1.5)
    folds = drawn_folds(y, 5)
    found = out_of_fold(x, y, 3, folds, config=CONFIG)
    assert found.strengths == CONFIG.strengths
    among = folds.numbers != folds.numbers[7]
    alone = fit_softmax(x[among].astype(np.float64), y[among], 3, strength=10.0, tolerance=1e-6, max_iter=1000)
    assert found.at_label[2, 7] == pytest.approx(metrics.softmax(alone.logits(x[7:8]))[0, y[7]], abs=0.02)


def test_of_much_work_one_fold_is_held_out() -> None:
    x, y = blobs(50, 3, noise=1.5)
    found = out_of_fold(x, y, 3, drawn_folds(y, 5), config=replace(CONFIG, one_fold_from=x.size * 3))
    assert len(found.images) == 10


def test_penalties_whose_fit_does_not_converge_are_not_taken() -> None:
    x, y = blobs(60, 3, noise=2.0)
    found = out_of_fold(x, y, 3, drawn_folds(y, 5), config=replace(CONFIG, max_iter=8))
    assert 0 < len(found.strengths) < len(CONFIG.strengths)
    assert found.strengths == CONFIG.strengths[: len(found.strengths)]
    none = out_of_fold(x, y, 3, drawn_folds(y, 5), config=replace(CONFIG, max_iter=1))
    assert none.strengths == ()
    assert choose(none, units=np.arange(60), config=CONFIG) is None


def test_of_losses_within_an_error_the_strength_nearest_to_the_usual_is_taken() -> None:
    strengths = (0.1, 10.0, 100.0)
    level = np.array([[0.5, 0.3] * 50, [0.7, 0.5] * 50, [0.5, 0.71] * 50])
    units = np.arange(100)
    near = told(level.tolist(), strengths=strengths)
    means = near.losses(None)[0].mean(axis=1)
    assert means[2] < means[1] < means[0]
    assert choose(near, units=units, config=CONFIG) == 1
    assert choose(near, units=units, config=replace(CONFIG, errors=0.0)) == 2
    assert choose(near, units=units, config=replace(CONFIG, usual=0.1)) != 0, "the first is clearly worse"


def test_one_image_does_not_decide() -> None:
    """It is wrong by hundreds of nats under the weak penalty, which all others prefer."""
    level = np.array([[0.5] * 59 + [0.5], [0.9] * 59 + [1e-300]])
    found = told(level.tolist(), strengths=(1.0, 100.0))
    assert choose(found, units=np.arange(60), config=replace(CONFIG, usual=1.0)) == 1


def test_weights_of_images_count() -> None:
    level = np.array([[0.3] * 30 + [0.9] * 30, [0.6] * 30 + [0.5] * 30])
    found = told(level.tolist(), strengths=(1.0, 100.0))
    first, second = np.repeat([1.0, 0.01], 30), np.repeat([0.01, 1.0], 30)
    assert choose(found, units=np.arange(60), weights=first, config=CONFIG) == 1
    assert choose(found, units=np.arange(60), weights=second, config=CONFIG) == 0


def test_copies_are_no_further_evidence() -> None:
    x, y = blobs(40, 3, noise=2.0)
    units = np.arange(40)
    once = choose(out_of_fold(x, y, 3, drawn_folds(y, 5, units=units), config=CONFIG), units=units, config=CONFIG)
    twice, labels, both = np.tile(x, (4, 1)), np.tile(y, 4), np.tile(units, 4)
    folds = drawn_folds(labels, 5, units=both)
    found = out_of_fold(twice, labels, 3, folds, config=CONFIG)
    assert choose(found, units=both, config=CONFIG) == once


def test_nested_predictions_are_those_of_a_choice_made_without_the_fold() -> None:
    x, y = blobs(60, 3, noise=1.0)
    folds = drawn_folds(y, 5)
    before = nested_predictions(x, y, 3, folds, config=CONFIG)
    out = folds.numbers == 2
    changed = y.copy()
    changed[out] = (y[out] + 1) % 3
    after = nested_predictions(x, changed, 3, folds, config=CONFIG)
    np.testing.assert_allclose(after[out], before[out], atol=1e-6)
    assert not np.allclose(after[~out], before[~out], atol=1e-3)
    assert metrics.accuracy(before, y) > 0.8


def test_nested_predictions_of_random_labels_are_chance() -> None:
    x, _ = blobs(200, 2, noise=1.0)
    y = np.random.default_rng(1).permutation(np.arange(200) % 2)
    found = nested_predictions(x, y, 2, drawn_folds(y, 5), config=PenaltyConfig())
    assert metrics.accuracy(found, y) == pytest.approx(0.5, abs=0.12)
    assert metrics.nll(found, y) > 0.66


def test_images_that_are_never_held_out_keep_their_class_in_every_fit() -> None:
    x, y = blobs(40, 2, noise=1.0)
    y[5] = 2
    folds = drawn_folds(y, 5)
    assert isinstance(folds, Folds)
    found = out_of_fold(x, y, 3, folds, config=CONFIG)
    assert 5 not in found.images
    assert len(found.images) == 39


@pytest.mark.parametrize("changes", [{}, {"one_thread_below": 500}], ids=["paths", "parts of a fit"])
def test_threads_change_no_bit_and_end(changes: dict[str, int]) -> None:
    x, y = blobs(120, 3, noise=2.0)
    weights = np.random.default_rng(2).uniform(0.5, 2.0, size=120)
    folds, config = drawn_folds(y, 5), replace(CONFIG, **changes)
    one, many = (out_of_fold(x, y, 3, folds, weights=weights, threads=threads, config=config) for threads in (1, 7))
    assert one.strengths == many.strengths
    assert np.array_equal(one.at_label, many.at_label)
    assert all(np.array_equal(a.weight, b.weight) for a, b in zip(one.starts, many.starts, strict=True))
    nested = [nested_predictions(x, y, 3, folds, weights=weights, threads=threads, config=config) for threads in (1, 4)]
    assert np.array_equal(nested[0], nested[1])
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("tlkit-fit")] == []


@pytest.mark.parametrize("strengths", [(0.1, 1.0, 10.0, 100.0), (1.0, 1.1, 1000.0), (3.0, 3.0, 3.0)])
def test_a_path_ends_where_fits_from_nothing_do(strengths: tuple[float, ...]) -> None:
    x, y = blobs(80, 3, noise=2.0)
    config = PenaltyConfig(strengths=strengths, rough=1e-5)
    path = fit_path(x, y, 3, np.ones(80, dtype=bool), config=config)
    assert len(path) == len(strengths)
    for strength, found in zip(strengths, path, strict=True):
        alone = fit_softmax(x.astype(np.float64), y, 3, strength=strength, tolerance=1e-7, max_iter=1000)
        np.testing.assert_allclose(metrics.softmax(found.logits(x)), metrics.softmax(alone.logits(x)), atol=2e-3)


def test_a_path_takes_fewer_steps_than_fits_that_start_at_the_one_before() -> None:
    x, y = blobs(120, 3, noise=2.0)
    config = PenaltyConfig()
    path = fit_path(x, y, 3, np.ones(120, dtype=bool), config=config)
    before, steps = None, 0
    for strength in config.strengths:
        before = fit_softmax(x, y, 3, strength=strength, start=before, tolerance=config.rough, max_iter=config.max_iter)
        steps += before.iterations
    assert sum(found.iterations for found in path) < 0.8 * steps

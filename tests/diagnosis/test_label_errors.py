"""Confident learning against its definition written out, on planted wrong labels, and under permutations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tl_kit.diagnosis.label_errors import class_thresholds, suspect_labels


def by_definition(probabilities: np.ndarray, labels: np.ndarray) -> tuple[list[bool], list[int], list[float]]:
    """Northcutt et al. 2021, equations 1 and 2, image by image; no class without images has a threshold."""
    classes = range(probabilities.shape[1])
    thresholds = {}
    for j in classes:
        own = [p[j] for p, label in zip(probabilities, labels, strict=True) if label == j]
        if own:
            thresholds[j] = sum(own) / len(own)
    suspect, confident, margin = [], [], []
    for p, label in zip(probabilities, labels, strict=True):
        above = [j for j in thresholds if p[j] >= thresholds[j]]
        best = max(above, key=lambda j: p[j], default=-1)
        suspect.append(best not in (-1, label))
        confident.append(best)
        margin.append(p[label] - max(p[j] for j in classes if j != label))
    return suspect, confident, margin


@st.composite
def predictions(draw):
    """Probabilities on a grid whose sums are exact, so that thresholds are reached exactly now and then."""
    classes, images = draw(st.integers(2, 5)), draw(st.integers(1, 30))
    weights = draw(
        st.lists(st.lists(st.integers(1, 9), min_size=classes, max_size=classes), min_size=images, max_size=images)
    )
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=images, max_size=images))
    values = np.array(weights, dtype=np.float64)
    return values / values.sum(axis=1, keepdims=True), np.array(labels)


@given(data=predictions())
@settings(max_examples=200, deadline=None)
def test_the_definition_written_out(data):
    probabilities, labels = data
    found = suspect_labels(probabilities, labels)
    thresholds = class_thresholds(probabilities, labels)
    # A probability at its threshold up to rounding may fall on either side of it.
    clear = (np.abs(probabilities - thresholds) > 1e-12).all(axis=1)
    suspect, confident, margin = by_definition(probabilities, labels)
    np.testing.assert_array_equal(found.suspect[clear], np.array(suspect)[clear])
    np.testing.assert_array_equal(found.confident[clear], np.array(confident)[clear])
    np.testing.assert_allclose(found.margin, margin, atol=1e-15)


def test_an_example_by_hand():
    """Thresholds 0.5 and 0.75: means of 0.5, 0.5, and of 1, 0.5."""
    probabilities = [[0.75, 0.25], [0.25, 0.75], [0.0, 1.0], [0.5, 0.5]]
    labels = [0, 0, 1, 1]
    np.testing.assert_array_equal(class_thresholds(probabilities, labels), [0.5, 0.75])
    found = suspect_labels(probabilities, labels)
    assert found.confident.tolist() == [0, 1, 1, 0]  # the last: its 0.5 is enough for class 0, and not for its own
    assert found.suspect.tolist() == [False, True, False, True]
    assert found.margin.tolist() == [0.5, -0.5, 1.0, 0.0]
    assert found.ranking().tolist() == [1, 3]


def test_below_every_threshold_nothing_is_claimed():
    """The last image is unlike both classes; the mean of class 1 is pulled down to 0.7, not to its 0.55."""
    found = suspect_labels([[1.0, 0.0], [1.0, 0.0], [0.1, 0.9], [0.5, 0.5]], [0, 0, 1, 1])
    assert found.confident.tolist() == [0, 0, 1, -1]
    assert not found.suspect.any()


def test_a_class_without_images_is_suggested_to_nobody():
    found = suspect_labels([[0.1, 0.0, 0.9], [0.1, 0.8, 0.1]], [0, 1])
    assert np.isinf(class_thresholds([[0.1, 0.0, 0.9], [0.1, 0.8, 0.1]], [0, 1])[2])
    assert found.confident.tolist() == [0, 1]


@given(data=predictions(), seed=st.integers(0, 1000))
@settings(max_examples=100, deadline=None)
def test_permuting_the_images_permutes_the_result(data, seed):
    probabilities, labels = data
    # As integers over a common denominator the thresholds are sums without rounding, in any order.
    probabilities = np.round(probabilities * 2**20) / 2**20
    order = np.random.default_rng(seed).permutation(len(labels))
    straight, permuted = suspect_labels(probabilities, labels), suspect_labels(probabilities[order], labels[order])
    for name in ("suspect", "confident", "margin"):
        np.testing.assert_array_equal(getattr(permuted, name), getattr(straight, name)[order])
    ranked = straight.margin[straight.ranking()]
    np.testing.assert_array_equal(permuted.margin[order.argsort()][straight.ranking()], ranked)
    assert (np.diff(ranked) >= 0).all()


@given(data=predictions(), names=st.permutations(range(5)))
@settings(max_examples=100, deadline=None)
def test_renaming_the_classes_renames_the_suggestions(data, names):
    probabilities, labels = data
    classes = probabilities.shape[1]
    new = np.array([name for name in names if name < classes])  # class c becomes new[c]
    renamed = np.empty_like(probabilities)
    renamed[:, new] = probabilities
    straight, other = suspect_labels(probabilities, labels), suspect_labels(renamed, new[labels])
    tied = np.array([len(set(row)) < classes for row in probabilities])
    np.testing.assert_array_equal(other.margin, straight.margin)
    expected = np.where(straight.confident >= 0, new[straight.confident], -1)
    np.testing.assert_array_equal(other.confident[~tied], expected[~tied])


def test_planted_flips_come_first():
    """Three separated clouds, 12 labels of 300 flipped, scored out of fold by an independent classifier."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(3), 100)
    points = np.array([[0, 0], [5, 0], [0, 5]])[truth] + rng.normal(size=(300, 2))
    flipped = rng.choice(300, 12, replace=False)
    labels = truth.copy()
    labels[flipped] = (truth[flipped] + rng.integers(1, 3, 12)) % 3
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    probabilities = cross_val_predict(LogisticRegression(), points, labels, cv=folds, method="predict_proba")
    found = suspect_labels(probabilities, labels)
    assert set(found.ranking()[:12]) == set(flipped)
    assert (found.confident[flipped] == truth[flipped]).all()
    clean = suspect_labels(
        cross_val_predict(LogisticRegression(), points, truth, cv=folds, method="predict_proba"), truth
    )
    assert clean.suspect.sum() <= 3


@pytest.mark.parametrize(
    ("probabilities", "labels"), [([0.5, 0.5], [0, 1]), ([[1.0], [1.0]], [0, 0]), ([[0.5, 0.5]], [0, 1])]
)
def test_other_shapes_are_refused(probabilities, labels):
    with pytest.raises(ValueError, match="want probabilities"):
        suspect_labels(probabilities, labels)

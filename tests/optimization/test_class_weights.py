"""Class weights against scikit-learn's definition and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tl_kit.optimization.class_weights import class_weights, image_weights

CLASSES = 4
LABELS: NDArray[np.int64] = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 3])


def test_each_class_weighs_the_same_and_the_mean_weight_is_one() -> None:
    weights = class_weights(LABELS, CLASSES)
    np.testing.assert_allclose(weights, [12 / (4 * count) for count in (6, 3, 2, 1)])
    np.testing.assert_allclose(image_weights(LABELS), weights[LABELS])
    np.testing.assert_allclose(np.bincount(LABELS, weights=image_weights(LABELS)), [3, 3, 3, 3])
    assert image_weights(LABELS).sum() == pytest.approx(12)


def test_even_classes_weigh_exactly_one() -> None:
    for images, classes in ((7, 3), (100, 10), (13, 7)):
        labels = np.tile(np.arange(classes), images)
        assert (class_weights(labels, classes) == 1).all()
        assert (image_weights(labels) == 1).all()


def test_a_class_without_images_counts_nowhere() -> None:
    np.testing.assert_allclose(class_weights(np.array([0, 0, 2]), 3), [0.75, 1, 1.5])
    np.testing.assert_allclose(image_weights(np.array([0, 0, 2])), [0.75, 0.75, 1.5])

"""scikit-learn's own checks of estimators, which feed tables of numbers: here each row is drawn as an image.

Without that, ``check_estimator`` skips estimators of images altogether. All but the drawing is the estimators' own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.utils import Tags
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import validate_data

from tests.sklearn.helpers import SMALL
from tl_kit.sklearn import ImageClassifier, ImageFeatures

BATCHES = "a batch of another size adds up in another order: probabilities differ in the seventh digit"
MOST = 9  # columns, a grey square each


def drawn(table: Any) -> NDArray[np.uint8]:
    """Rows (n, d) of numbers as grey images (n, 12, 12): one square for each of the first columns."""
    values = np.zeros((len(table), MOST))
    some = np.asarray(table, dtype=float)[:, :MOST]
    values[:, : some.shape[1]] = some
    levels = (128 + np.rint(24 * values)) % 256  # a sum that wraps around: some checks have values about 100
    return levels.astype(np.uint8).reshape(-1, 3, 3).repeat(4, axis=1).repeat(4, axis=2)


def of_tables(tags: Tags) -> Tags:
    tags.input_tags.two_d_array = True
    tags.input_tags.one_d_array = tags.input_tags.three_d_array = tags.input_tags.string = False
    return tags


class DrawnClassifier(ImageClassifier):
    def fit(self, X: Any, y: Any) -> DrawnClassifier:  # type: ignore[override]
        super().fit(drawn(validate_data(self, X)), y)
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        return super().predict_proba(drawn(validate_data(self, X, reset=False)))

    def __sklearn_tags__(self) -> Tags:
        return of_tables(super().__sklearn_tags__())


class DrawnFeatures(ImageFeatures):
    def fit(self, X: Any, y: Any = None) -> DrawnFeatures:
        super().fit(drawn(validate_data(self, X)))
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        return super().transform(drawn(validate_data(self, X, reset=False)))

    def __sklearn_tags__(self) -> Tags:
        return of_tables(super().__sklearn_tags__())


CLASSIFIER = DrawnClassifier(
    policy="head", options={"opt": ["C=1"], "allow": ["label-conflict", "class-missing"]}, **SMALL
)
EXPECTED_FAILED_CHECKS: dict[type[Any], dict[str, str]] = {
    DrawnClassifier: {"check_methods_subset_invariance": BATCHES},
    DrawnFeatures: {},
}


@parametrize_with_checks([CLASSIFIER, DrawnFeatures(**SMALL)])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_scikit_learns_checks(estimator: Any, check: Any, one_thread: None) -> None:
    reason = EXPECTED_FAILED_CHECKS[type(estimator)].get(check.func.__name__)
    if reason is None:
        check(estimator)
        return
    try:
        check(estimator)
    except AssertionError:
        pytest.xfail(reason)  # not strictly: it depends on the processor


def test_batches_of_other_sizes_agree_in_six_digits(one_thread: None) -> None:
    table = np.random.default_rng(0).normal(size=(30, 2)) + 4 * np.eye(3)[np.arange(30) % 3, :2]
    model = CLASSIFIER.fit(table, np.arange(30) % 3)
    alone = np.concatenate([model.predict_proba(row[None]) for row in table])
    np.testing.assert_allclose(model.predict_proba(table), alone, atol=1e-6)

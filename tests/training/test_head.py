"""The closed-form head against scikit-learn and against the conditions of the optimum."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from tl_kit import metrics
from tl_kit.config import HeadConfig
from tl_kit.training.head import fit_head


def blobs(classes: int, images: int, *, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    labels = np.arange(images) % classes
    centres = np.random.default_rng(99).normal(size=(classes, 12)) * 1.2
    scales = np.geomspace(0.01, 100, 12)
    return ((centres[labels] + rng.normal(size=(images, 12))) * scales + 5).astype(np.float32), labels


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_equals_scikit_learn_on_standardised_features(classes: int) -> None:
    x, y = blobs(classes, 210, seed=0)
    xv, yv = blobs(classes, 105, seed=1)
    fit = fit_head(x, y, classes, val_features=xv, val_labels=yv, config=HeadConfig(strengths=(0.01,), max_iter=1000))
    scaler = StandardScaler().fit(x.astype(np.float64))
    reference = LogisticRegression(C=0.01, max_iter=1000, tol=1e-8).fit(scaler.transform(x), y)
    ours = metrics.softmax(xv.astype(np.float64) @ fit.weight.T + fit.bias)
    np.testing.assert_allclose(ours, reference.predict_proba(scaler.transform(xv.astype(np.float64))), atol=2e-3)


def test_the_strength_is_the_one_that_validation_prefers() -> None:
    x, y = blobs(3, 30, seed=0)
    xv, yv = blobs(3, 300, seed=1)
    strengths = (1e-4, 1e-2, 1.0)
    chosen = fit_head(x, y, 3, val_features=xv, val_labels=yv, config=HeadConfig(strengths=strengths))
    alone = [
        fit_head(x, y, 3, val_features=xv, val_labels=yv, config=HeadConfig(strengths=(c,))).val_nll for c in strengths
    ]
    assert chosen.val_nll == pytest.approx(min(v for v in alone if v is not None), rel=1e-2)


def test_a_constant_feature_and_no_validation_images_are_fine() -> None:
    x, y = blobs(3, 30, seed=0)
    x[:, 4] = 7.0
    none = np.empty((0, 12), np.float32), np.empty(0, np.int64)
    fit = fit_head(x, y, 3, val_features=none[0], val_labels=none[1])
    assert fit.val_nll is None
    assert fit.strength == HeadConfig().strengths[len(HeadConfig().strengths) // 2]
    assert np.isfinite(fit.weight).all()


def test_image_order_changes_nothing_that_matters() -> None:
    x, y = blobs(4, 80, seed=0)
    xv, yv = blobs(4, 80, seed=1)
    order = np.random.default_rng(3).permutation(80)
    a = fit_head(x, y, 4, val_features=xv, val_labels=yv)
    b = fit_head(x[order], y[order], 4, val_features=xv, val_labels=yv)
    pa, pb = (metrics.softmax(xv.astype(np.float64) @ f.weight.T + f.bias) for f in (a, b))
    np.testing.assert_allclose(pa, pb, atol=5e-3)


def uneven(*counts: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    x, y = blobs(len(counts), len(counts) * max(counts), seed=seed)
    kept = np.concatenate([np.flatnonzero(y == label)[:count] for label, count in enumerate(counts)])
    return x[kept], y[kept]


TIGHT = HeadConfig(strengths=(0.003, 0.03), max_iter=2000, solver="newton")


def test_weights_of_one_are_no_weights() -> None:
    x, y = blobs(3, 60, seed=0)
    xv, yv = blobs(3, 33, seed=1)
    plain = fit_head(x, y, 3, val_features=xv, val_labels=yv)
    ones = fit_head(x, y, 3, val_features=xv, val_labels=yv, weights=np.ones(60), val_weights=np.ones(33))
    assert np.array_equal(plain.weight, ones.weight)
    assert np.array_equal(plain.bias, ones.bias)
    assert plain.val_nll == ones.val_nll


def test_images_of_whole_weight_count_as_so_many_images() -> None:
    x, y = uneven(30, 10, 5, seed=0)
    xv, yv = uneven(12, 12, 4, seed=1)
    times, times_val = np.array([1, 3, 6])[y], np.array([1, 1, 3])[yv]
    weighted = fit_head(
        x, y, 3, val_features=xv, val_labels=yv, weights=times * 1.0, val_weights=times_val * 1.0, config=TIGHT
    )
    repeated = fit_head(
        np.repeat(x, times, axis=0),
        np.repeat(y, times),
        3,
        val_features=np.repeat(xv, times_val, axis=0),
        val_labels=np.repeat(yv, times_val),
        config=TIGHT,
    )
    assert weighted.strength == repeated.strength
    assert weighted.val_nll == pytest.approx(repeated.val_nll, rel=1e-3)
    np.testing.assert_allclose(weighted.weight, repeated.weight, rtol=0.02, atol=2e-3 * np.abs(repeated.weight).max())


def test_the_validation_weights_choose_the_strength() -> None:
    """Where all weight is on the images that a strong penalty suits, it is chosen; and the other way round."""
    x, y = blobs(3, 30, seed=0)
    xv, yv = blobs(3, 60, seed=1)
    config = HeadConfig(strengths=(1e-4, 1.0))
    fits = [
        fit_head(x, y, 3, val_features=xv, val_labels=yv, config=HeadConfig(strengths=(c,))) for c in config.strengths
    ]
    losses = [
        -np.log(metrics.softmax(xv.astype(np.float64) @ fit.weight.T + fit.bias)[np.arange(60), yv]) for fit in fits
    ]
    weak_is_better = losses[1] < losses[0]
    assert 0 < weak_is_better.sum() < 60
    for weights, expected in ((weak_is_better, 1.0), (~weak_is_better, 1e-4)):
        chosen = fit_head(x, y, 3, val_features=xv, val_labels=yv, val_weights=weights + 1e-9, config=config)
        assert chosen.strength == expected

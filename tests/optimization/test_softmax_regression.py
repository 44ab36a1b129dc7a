"""The convex fit against scikit-learn, in any basis, from any start, by either solver."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from tl_kit import metrics
from tl_kit.optimization.softmax_regression import Images, fit_softmax, rotate


def blobs(images: int, channels: int, classes: int, *, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    labels = np.arange(images) % classes
    x = rng.normal(size=(classes, channels))[labels] + 1.5 * rng.normal(size=(images, channels))
    x *= np.geomspace(0.2, 2, channels)
    return (x - x.mean(axis=0)).astype(np.float32), labels


TIGHT = {"tolerance": 1e-6, "max_iter": 2000}


@pytest.mark.parametrize("solver", ["lbfgs", "newton"])
@pytest.mark.parametrize("strength", [0.1, 10.0, 1000.0])
@pytest.mark.parametrize(("images", "channels", "classes"), [(90, 12, 3), (40, 100, 4), (60, 30, 2)])
def test_equals_scikit_learn(images: int, channels: int, classes: int, strength: float, solver: str) -> None:
    x, y = blobs(images, channels, classes)
    rotated = rotate(x, most=2048)
    found = fit_softmax(rotated.rows.astype(np.float64), y, classes, strength=strength, solver=solver, **TIGHT)
    # For two classes scikit-learn penalises the one row of their difference: half of what the two rows cost.
    c = strength / images * (2 if classes == 2 else 1)
    reference = LogisticRegression(C=c, tol=1e-10, max_iter=20_000).fit(x.astype(np.float64), y)
    ours = metrics.softmax(x @ rotated.on_features(found.weight).T + found.bias)
    assert found.converged
    np.testing.assert_allclose(ours, reference.predict_proba(x), atol=2e-4)


def test_the_basis_has_no_more_axes_than_images_or_channels_and_changes_nothing() -> None:
    for images, channels in ((30, 80), (80, 30)):
        x, y = blobs(images, channels, 3)
        turned, plain = rotate(x, most=2048), rotate(x, most=10)
        assert plain.axes is None
        assert turned.rows.shape[1] <= 30
        fits = [fit_softmax(each.rows.astype(np.float64), y, 3, strength=5.0, **TIGHT) for each in (turned, plain)]
        weights = [each.on_features(fit.weight) for each, fit in zip((turned, plain), fits, strict=True)]
        np.testing.assert_allclose(weights[0], weights[1], atol=1e-4)
        np.testing.assert_allclose(fits[0].bias, fits[1].bias, atol=1e-4)


def test_images_of_whole_weight_count_as_so_many() -> None:
    x, y = blobs(60, 8, 3)
    times = np.array([1, 2, 5])[y]
    weighted = fit_softmax(x.astype(np.float64), y, 3, strength=7.0, weights=times * 1.0, **TIGHT)
    repeated = fit_softmax(
        np.repeat(x, times, axis=0).astype(np.float64), np.repeat(y, times), 3, strength=7.0, **TIGHT
    )
    np.testing.assert_allclose(weighted.weight, repeated.weight, atol=1e-5)


def test_float32_comes_to_the_same_and_says_that_it_converged() -> None:
    x, y = blobs(200, 50, 5)
    coarse = fit_softmax(x, y, 5, strength=100.0, tolerance=3e-4, max_iter=500)
    exact = fit_softmax(x.astype(np.float64), y, 5, strength=100.0, **TIGHT)
    assert coarse.converged
    np.testing.assert_allclose(metrics.softmax(coarse.logits(x)), metrics.softmax(exact.logits(x)), atol=0.02)


@pytest.mark.parametrize("solver", ["lbfgs", "newton"])
def test_a_fit_that_was_cut_short_says_so(solver: str) -> None:
    x, y = blobs(200, 50, 5)
    found = fit_softmax(x.astype(np.float64), y, 5, strength=1e4, tolerance=1e-6, max_iter=2, solver=solver)
    assert not found.converged


def test_a_start_nearby_saves_steps() -> None:
    x, y = blobs(200, 50, 5)
    rows = x.astype(np.float64)
    near = fit_softmax(rows, y, 5, strength=90.0, **TIGHT)
    cold, warm = (fit_softmax(rows, y, 5, strength=100.0, start=start, **TIGHT) for start in (None, near))
    assert warm.iterations < cold.iterations
    np.testing.assert_allclose(cold.weight, warm.weight, atol=1e-4)


def test_features_of_zero_give_the_classes_shares() -> None:
    y = (np.arange(40) % 4 == 0).astype(np.int64)
    rotated = rotate(np.zeros((40, 6), np.float32), most=2048)
    found = fit_softmax(rotated.rows, y, 2, strength=10.0, tolerance=1e-5, max_iter=100)
    assert found.converged
    assert rotated.on_features(found.weight).shape == (2, 6)
    assert metrics.softmax(found.bias)[1] == pytest.approx(0.25, abs=1e-3)


@pytest.mark.parametrize("solver", ["lbfgs", "newton"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_parts_and_threads_change_no_bit(dtype: type, solver: str) -> None:
    x, y = blobs(203, 50, 5)
    options = {"strength": 10.0, "tolerance": 1e-5, "max_iter": 500, "solver": solver, "one_thread_below": 20_000}
    assert len(Images(x.astype(dtype), y, 5, one_thread_below=20_000).parts) == 13
    one, many = (fit_softmax(x.astype(dtype), y, 5, threads=threads, **options) for threads in (1, 4))
    whole = fit_softmax(x.astype(dtype), y, 5, **{**options, "one_thread_below": 10**9})
    assert np.array_equal(one.weight, many.weight)
    assert np.array_equal(one.bias, many.bias)
    np.testing.assert_allclose(whole.weight, one.weight, atol=2e-3)


@pytest.mark.parametrize(("images", "channels", "classes"), [(700, 1400, 10), (130, 3000, 3), (90, 700, 40)])
def test_value_gradient_and_hessian_of_rows_in_blocks(images: int, channels: int, classes: int) -> None:
    """Against sums over the images, where the blocks are even, filled up, or one."""
    x, y = blobs(images, channels, classes)
    weights = np.random.default_rng(1).uniform(0.5, 2, size=images)
    (part,) = Images(x.astype(np.float64), y, classes, weights=weights, one_thread_below=10**9).parts
    rng = np.random.default_rng(2)
    point, direction = 0.05 * rng.normal(size=(2, classes, channels + 1))
    wide, share = np.append(x.astype(np.float64), np.ones((images, 1)), axis=1), weights / weights.sum()
    probabilities = metrics.softmax(wide @ point.T)
    value, gradient = part.evaluate(point)
    assert value == pytest.approx(-share @ np.log(probabilities[np.arange(images), y]))
    errors = (probabilities - np.eye(classes)[y]) * share[:, None]
    np.testing.assert_allclose(gradient, errors.T @ wide, atol=1e-12)
    along = wide @ direction.T
    curved = probabilities * (along - (probabilities * along).sum(axis=1, keepdims=True)) * share[:, None]
    np.testing.assert_allclose(part.product(direction), curved.T @ wide, atol=1e-12)


@pytest.mark.parametrize(("images", "channels"), [(30, 80), (80, 30), (50, 50), (45, 50), (9000, 30)])
def test_the_axes_are_at_right_angles_and_have_the_features(images: int, channels: int) -> None:
    x, _ = blobs(images, channels, 3)
    turned, again = rotate(x, most=2048), rotate(x, most=2048, threads=3)
    assert turned.axes is not None
    assert np.array_equal(turned.rows, again.rows)
    assert turned.rows.dtype == turned.axes.dtype == np.float32
    np.testing.assert_allclose(turned.axes @ turned.axes.T, np.eye(len(turned.axes)), atol=1e-4)
    np.testing.assert_allclose(turned.rows @ turned.axes, x, atol=1e-4)
    assert len(turned.axes) <= min(images, channels) + 5, "but for a few of nothing but rounding"

"""The closed-form head against scikit-learn, and against the images and channels that would decide it alone."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from tl_kit import metrics
from tl_kit.config import HeadConfig
from tl_kit.errors import NonFiniteError, TrainingError
from tl_kit.optimization.feature_scaling import fit_scaling
from tl_kit.optimization.penalty_choice import drawn_folds
from tl_kit.training.logistic_regression import HeadFit, fit_head, fit_heads

Features = NDArray[np.float32]
Labels = NDArray[np.int64]


def blobs(classes: int, images: int, *, seed: int) -> tuple[Features, Labels]:
    rng = np.random.default_rng(seed)
    labels = np.arange(images) % classes
    centres = np.random.default_rng(99).normal(size=(classes, 12)) * 1.2
    scales = np.geomspace(0.3, 3, 12)
    return ((centres[labels] + rng.normal(size=(images, 12))) * scales + 5).astype(np.float32), labels


def clean(images: int, *, seed: int, channels: int = 20) -> tuple[Features, Labels]:
    """Three classes, far apart."""
    labels = np.arange(images) % 3
    centres = np.random.default_rng(5).normal(size=(3, channels)) * 2
    return (centres[labels] + np.random.default_rng(seed).normal(size=(images, channels))).astype(np.float32), labels


def predicted(fit: HeadFit, features: Features) -> NDArray[np.float64]:
    return metrics.softmax(features.astype(np.float64) @ fit.weight.T + fit.bias)


def loss(fit: HeadFit, features: Features, labels: Labels) -> float:
    return metrics.nll(predicted(fit, features), labels)


def with_columns(features: Features, columns: int, values: dict[int, float]) -> Features:
    """So many channels more, zero but for these images."""
    more = np.zeros((len(features), columns), np.float32)
    for image, value in values.items():
        more[image] = value
    return np.concatenate([features, more], axis=1)


@pytest.mark.parametrize("solver", ["lbfgs", "newton"])
@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("images", [9, 210])
def test_c_is_that_of_scikit_learn_on_scaled_features(classes: int, images: int, solver: str) -> None:
    x, y = blobs(classes, images, seed=0)
    fit = fit_head(x, y, classes, config=HeadConfig(c=0.3, solver=solver, fine=1e-6))
    assert fit.c == pytest.approx(0.3)
    assert fit.strength == pytest.approx(0.3 * images / (2 if classes == 2 else 1))
    scaling = fit_scaling(x)
    reference = LogisticRegression(C=0.3, max_iter=5000, tol=1e-8).fit(scaling(x), y)
    xv, _ = blobs(classes, 105, seed=1)
    np.testing.assert_allclose(predicted(fit, xv), reference.predict_proba(scaling(xv)), atol=2e-3)


def test_the_penalty_is_chosen_and_the_record_says_from_what() -> None:
    x, y = blobs(3, 90, seed=0)
    fit = fit_head(x, y, 3)
    assert tuple(fit.tried) == HeadConfig().strengths
    assert fit.held_out == 90
    assert fit.nll == fit.tried[fit.strength]
    assert fit.nll < min(fit.tried.values()) + 0.05
    again = fit_head(x, y, 3, config=HeadConfig(strengths=(fit.strength,)))
    assert again.nll is None
    np.testing.assert_allclose(predicted(again, x), predicted(fit, x), atol=2e-3)


@pytest.mark.parametrize("times", [2, 5])
def test_the_penalty_is_per_image(times: int) -> None:
    """Every image so many times, known to be copies: the same head, at a C that is so much smaller."""
    x, y = blobs(3, 60, seed=0)
    units = np.random.default_rng(0).permutation(60)
    once = fit_head(x, y, 3, folds=drawn_folds(y, 5, units=units))
    many, labels = np.tile(x, (times, 1)), np.tile(y, times)
    more = fit_head(many, labels, 3, folds=drawn_folds(labels, 5, units=np.tile(units, times)))
    assert more.strength == once.strength
    assert more.c == pytest.approx(once.c / times)
    np.testing.assert_allclose(predicted(more, x), predicted(once, x), atol=2e-3)


def test_without_anything_to_hold_out_the_usual_penalty_is_taken() -> None:
    x, y = clean(3, seed=0)
    fit = fit_head(x, y, 3)
    assert fit.strength == HeadConfig.usual
    assert fit.nll is None
    assert fit.held_out == 0
    assert (predicted(fit, x).argmax(axis=1) == y).all()


def test_all_strengths_are_fitted_in_order_of_their_penalty() -> None:
    x, y = blobs(3, 60, seed=0)
    fits = fit_heads(x, y, 3, config=HeadConfig(strengths=(10.0, 0.1, 1.0)))
    assert [fit.strength for fit in fits] == [0.1, 1.0, 10.0]
    losses = [loss(fit, x, y) for fit in fits]
    assert losses == sorted(losses, reverse=True)


def test_image_order_changes_nothing_that_matters() -> None:
    x, y = blobs(4, 80, seed=0)
    order = np.random.default_rng(3).permutation(80)
    folds, turned = (drawn_folds(labels, 5, units=units) for labels, units in ((y, np.arange(80)), (y[order], order)))
    a, b = fit_head(x, y, 4, folds=folds), fit_head(x[order], y[order], 4, folds=turned)
    np.testing.assert_allclose(predicted(a, x), predicted(b, x), atol=5e-3)


def uneven(*counts: int, seed: int) -> tuple[Features, Labels]:
    x, y = blobs(len(counts), len(counts) * max(counts), seed=seed)
    kept = np.concatenate([np.flatnonzero(y == label)[:count] for label, count in enumerate(counts)])
    return x[kept], y[kept]


def test_weights_of_one_are_no_weights() -> None:
    x, y = blobs(3, 60, seed=0)
    plain, ones = fit_head(x, y, 3), fit_head(x, y, 3, weights=np.ones(60))
    assert ones.strength == plain.strength
    np.testing.assert_allclose(ones.weight, plain.weight, atol=1e-6)


def test_images_of_whole_weight_count_as_so_many_images() -> None:
    x, y = uneven(30, 10, 5, seed=0)
    times = np.array([1, 3, 6])[y]
    units, exact = np.arange(45), HeadConfig(rough=1e-6)
    weighted = fit_head(x, y, 3, folds=drawn_folds(y, 5, units=units), weights=times * 1.0, config=exact)
    many, labels = np.repeat(x, times, axis=0), np.repeat(y, times)
    repeated = fit_head(many, labels, 3, folds=drawn_folds(labels, 5, units=np.repeat(units, times)), config=exact)
    assert weighted.strength == repeated.strength
    assert weighted.c == pytest.approx(repeated.c)
    np.testing.assert_allclose(predicted(weighted, x), predicted(repeated, x), atol=5e-3)


@pytest.mark.parametrize("columns", [1, 15])
@pytest.mark.parametrize(("in_train", "later"), [(1e-4, 0.5), (1e-5, 6.0), (1e-2, 6.0), (1e-3, 1e3), (0.0, 6.0)])
@pytest.mark.parametrize("solver", ["lbfgs", "newton"])
def test_channels_that_are_almost_dead_decide_nothing(columns: int, in_train: float, later: float, solver: str) -> None:
    """Where they wake up in an image that was not trained on, and in one that was."""
    x, y = clean(60, seed=0)
    xt, yt = clean(60, seed=1)
    config = HeadConfig(solver=solver)
    alone = loss(fit_head(x, y, 3, config=config), xt, yt)
    assert alone < 0.05
    fit = fit_head(with_columns(x, columns, {7: in_train}), y, 3, config=config)
    found = predicted(fit, with_columns(xt, columns, {8: later}))
    others = np.arange(60) != 8
    assert metrics.nll(found[others], yt[others]) < alone + 0.02
    if later < 100:
        assert metrics.nll(found, yt) < alone + 0.05
    woken = fit_head(with_columns(x, columns, {7: in_train, 11: later}), y, 3, config=config)
    assert loss(woken, with_columns(xt, columns, {}), yt) < alone + 0.06


@pytest.mark.parametrize("value", [1e2, 1e5, 1e9])
def test_a_channel_that_one_image_makes_huge_spoils_nothing(value: float) -> None:
    x, y = clean(60, seed=0)
    xt, yt = clean(60, seed=1)
    x[7, 3] = value
    assert loss(fit_head(x, y, 3), xt, yt) < 0.1


@pytest.mark.parametrize("factor", [1e-8, 1.0, 1e3, 1e20])
def test_what_is_dead_follows_from_the_other_channels(factor: float) -> None:
    """A network of small or huge features is fitted like any other."""
    x, y = clean(60, seed=0)
    xt, yt = clean(60, seed=1)
    plain, scaled = fit_head(x, y, 3), fit_head((x * factor).astype(np.float32), y, 3)
    assert scaled.strength == plain.strength
    assert loss(scaled, xt * np.float32(factor), yt) == pytest.approx(loss(plain, xt, yt), rel=0.05)


@pytest.mark.parametrize("size", [3.0, 30.0, 100.0])
def test_one_image_does_not_choose_the_penalty(size: float) -> None:
    """One image far on the wrong side: whatever fits the other 59 is taken."""
    x, y = clean(60, seed=0)
    xt, yt = clean(60, seed=1)
    x[8] = x[y != y[8]].mean(axis=0) * np.float32(size)
    assert loss(fit_head(x, y, 3), xt, yt) < 0.25


def test_a_label_that_is_wrong_does_not_choose_the_penalty() -> None:
    x, y = clean(60, seed=0)
    xt, yt = clean(60, seed=1)
    y[8] = (y[8] + 1) % 3
    assert loss(fit_head(x, y, 3), xt, yt) < 0.15


def test_members_of_other_scales_do_not_silence_each_other() -> None:
    """Of two networks' features side by side, the smaller ones are not dead."""
    x, y = clean(60, seed=0)
    joint = np.concatenate([x * 1e5, x], axis=1)
    (fit,) = fit_heads(joint, y, 3, blocks=[20, 20], config=HeadConfig(strengths=(10.0,)))
    shares = [np.abs(fit.weight[:, part] * joint[:, part].std(axis=0)).sum() for part in (slice(20), slice(20, 40))]
    assert shares[0] == pytest.approx(shares[1], rel=1e-3)


@pytest.mark.parametrize("features", [0.0, 7.0])
def test_constant_features_give_the_classes_shares(features: float) -> None:
    x, y = np.full((40, 6), features, np.float32), (np.arange(40) % 4 == 0).astype(np.int64)
    fit = fit_head(x, y, 2)
    assert not fit.weight.any()
    assert metrics.softmax(fit.bias)[1] == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("kind", ["a constant channel", "float16", "two classes", "a class of one image", "wide"])
def test_few_or_coarse_images_are_fine(kind: str) -> None:
    x, y = clean(60, seed=0, channels=500 if kind == "wide" else 20)
    if kind == "a constant channel":
        x[:, 4] = 7.0
    elif kind == "float16":
        x = x.astype(np.float16)
    elif kind == "two classes":
        x, y = x[y < 2], y[y < 2]
    elif kind == "a class of one image":
        kept = (y != 2) | (np.cumsum(y == 2) == 1)
        x, y = x[kept], y[kept]
    fit = fit_head(x, y, 3)
    assert np.isfinite(fit.weight).all()
    assert fit.converged
    assert (predicted(fit, x).argmax(axis=1) == y).mean() > 0.95
    if kind == "two classes":
        assert predicted(fit, x)[:, 2].max() < 1e-6


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_an_error_that_counts_them(value: float) -> None:
    x, y = clean(60, seed=0)
    x[[3, 5], 2] = value
    with pytest.raises(NonFiniteError, match=r"features of 2 of 60 images are not finite"):
        fit_head(x, y, 3)


def test_a_single_class_is_an_error() -> None:
    x, _ = clean(12, seed=0)
    with pytest.raises(TrainingError, match="all of one class"):
        fit_head(x, np.ones(12, np.int64), 3)


def test_a_fit_that_was_cut_short_is_told_apart() -> None:
    x, y = clean(60, seed=0)
    assert not fit_head(x, y, 3, config=HeadConfig(strengths=(1e4,), max_iter=2)).converged


def test_threads_change_no_bit() -> None:
    x, y = blobs(4, 300, seed=0)
    config = HeadConfig(one_thread_below=5000)
    one, many, usual = (fit_head(x, y, 4, threads=threads, config=config) for threads in (1, 5, None))
    for other in (many, usual):
        assert np.array_equal(one.weight, other.weight)
        assert np.array_equal(one.bias, other.bias)
        assert one.tried == other.tried

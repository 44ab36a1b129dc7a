"""The closed-form head against scikit-learn, and against the images that would decide it alone."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from tl_kit import metrics
from tl_kit.config import HeadConfig
from tl_kit.errors import NonFiniteError, TrainingError
from tl_kit.optimization.feature_scaling import choose_strength
from tl_kit.training.logistic_regression import fit_head


def blobs(classes: int, images: int, *, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    labels = np.arange(images) % classes
    centres = np.random.default_rng(99).normal(size=(classes, 12)) * 1.2
    scales = np.geomspace(0.3, 3, 12)  # the floor is a tenth of the largest
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


def clean(images: int, *, seed: int, channels: int = 20) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Three classes, far apart."""
    labels = np.arange(images) % 3
    centres = np.random.default_rng(5).normal(size=(3, channels)) * 2
    return (centres[labels] + np.random.default_rng(seed).normal(size=(images, channels))).astype(np.float32), labels


def with_columns(features: NDArray[np.float32], columns: int, values: dict[int, float]) -> NDArray[np.float32]:
    """So many channels more, zero but for these images."""
    more = np.zeros((len(features), columns), np.float32)
    for image, value in values.items():
        more[image] = value
    return np.concatenate([features, more], axis=1)


@pytest.mark.parametrize("columns", [1, 15])
@pytest.mark.parametrize(("in_train", "in_val"), [(1e-4, 0.5), (1e-5, 6.0), (1e-2, 6.0), (1e-3, 1e3), (0.0, 6.0)])
@pytest.mark.parametrize("solver", ["lbfgs", "newton"])
def test_channels_that_are_almost_dead_decide_nothing(
    columns: int, in_train: float, in_val: float, solver: str
) -> None:
    x, y = clean(60, seed=0)
    xv, yv = clean(60, seed=1)
    config = HeadConfig(solver=solver)
    alone = fit_head(x, y, 3, val_features=xv, val_labels=yv, config=config)
    assert alone.val_nll is not None
    wide, wide_val = with_columns(x, columns, {7: in_train}), with_columns(xv, columns, {8: in_val})
    fit = fit_head(wide, y, 3, val_features=wide_val, val_labels=yv, config=config)
    rest = np.arange(60) != 8
    loss = metrics.nll(metrics.softmax(wide_val[rest].astype(np.float64) @ fit.weight.T + fit.bias), yv[rest])
    assert fit.strength >= alone.strength / 10
    assert loss < alone.val_nll + 0.02
    if in_val < 100:
        assert fit.val_nll is not None
        assert fit.val_nll < alone.val_nll + 0.05


@pytest.mark.parametrize("factor", [1e-8, 1.0, 1e3, 1e20])
def test_what_is_dead_follows_from_the_other_channels(factor: float) -> None:
    """A network of small or huge features is fitted like any other."""
    x, y = clean(60, seed=0)
    xv, yv = clean(60, seed=1)
    plain = fit_head(x, y, 3, val_features=xv, val_labels=yv)
    scaled = fit_head((x * factor).astype(np.float32), y, 3, val_features=xv * np.float32(factor), val_labels=yv)
    assert plain.val_nll is not None
    assert scaled.val_nll == pytest.approx(plain.val_nll, rel=0.05)
    assert scaled.strength == plain.strength


@pytest.mark.parametrize("loss", [1e2, 1e6])
def test_one_validation_image_does_not_choose_the_penalty(loss: float) -> None:
    """One image far on the wrong side: whatever fits the other 59 is taken."""
    x, y = clean(60, seed=0)
    xv, yv = clean(60, seed=1)
    plain = fit_head(x, y, 3, val_features=xv, val_labels=yv)
    xv[8] = xv[yv != yv[8]].mean(axis=0) * np.float32(loss)
    fit = fit_head(x, y, 3, val_features=xv, val_labels=yv)
    rest = np.arange(60) != 8
    found, expected = (
        metrics.nll(metrics.softmax(xv[rest].astype(np.float64) @ f.weight.T + f.bias), yv[rest]) for f in (fit, plain)
    )
    assert found < expected + 0.02


def test_members_of_other_scales_do_not_silence_each_other() -> None:
    """Of two networks' features side by side, the smaller ones are not dead."""
    x, y = clean(60, seed=0)
    joint = np.concatenate([x * 1e5, x], axis=1)
    none = np.empty((0, 40), np.float32), np.empty(0, np.int64)
    fit = fit_head(joint, y, 3, val_features=none[0], val_labels=none[1], blocks=[20, 20])
    shares = [np.abs(fit.weight[:, part] * joint[:, part].std(axis=0)).sum() for part in (slice(20), slice(20, 40))]
    assert shares[0] == pytest.approx(shares[1], rel=1e-3)


@pytest.mark.parametrize("features", [0.0, 7.0])
def test_constant_features_give_the_classes_shares(features: float) -> None:
    x, y = np.full((40, 6), features, np.float32), (np.arange(40) % 4 == 0).astype(np.int64)
    fit = fit_head(x, y, 2, val_features=x[:5], val_labels=y[:5])
    assert not fit.weight.any()
    assert metrics.softmax(fit.bias)[1] == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("kind", ["one image", "a class absent", "float16", "two classes"])
def test_few_or_coarse_validation_images_are_fine(kind: str) -> None:
    x, y = clean(60, seed=0)
    xv, yv = clean(30, seed=1)
    if kind == "one image":
        xv, yv = xv[:1], yv[:1]
    elif kind == "a class absent":
        xv, yv = xv[yv != 1], yv[yv != 1]
    elif kind == "float16":
        x, xv = x.astype(np.float16), xv.astype(np.float16)
    else:
        x, y, xv, yv = x[y < 2], y[y < 2], xv[yv < 2], yv[yv < 2]
    fit = fit_head(x, y, 3, val_features=xv, val_labels=yv)
    right = (x.astype(np.float64) @ fit.weight.T + fit.bias).argmax(axis=1) == y
    assert right.mean() > 0.95


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["train", "val"])
def test_features_that_are_not_finite_are_an_error_that_counts_them(value: float, where: str) -> None:
    x, y = clean(60, seed=0)
    xv, yv = clean(30, seed=1)
    (x if where == "train" else xv)[[3, 5], 2] = value
    with pytest.raises(NonFiniteError, match=r"features of 2 of (60|30) images are not finite"):
        fit_head(x, y, 3, val_features=xv, val_labels=yv)


def test_a_single_class_is_an_error() -> None:
    x, _ = clean(12, seed=0)
    with pytest.raises(TrainingError, match="all of one class"):
        fit_head(x, np.ones(12, np.int64), 3, val_features=x, val_labels=np.ones(12, np.int64))


def test_the_search_for_a_penalty_goes_on_after_one_rise() -> None:
    tried = []
    table = {1e-4: 1.0, 1e-3: 1.2, 1e-2: 0.5, 1e-1: 0.6, 1.0: 0.7, 10.0: 0.1}

    def loss(strength: float) -> float:
        tried.append(strength)
        return table[strength]

    assert choose_strength(tuple(table), loss) == 1e-2
    assert 10.0 not in tried, "two rises in a row end it"
    assert choose_strength((1.0, 1e-4), lambda strength: 0.0) == 1e-4, "of equals, the strongest penalty"

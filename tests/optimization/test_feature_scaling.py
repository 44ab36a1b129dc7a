"""Pareto scaling: no channel decides alone, whatever it does, and a linear layer on it is one on the features."""

from __future__ import annotations

import numpy as np
import pytest

from tl_kit.config import ScalingConfig
from tl_kit.errors import NonFiniteError
from tl_kit.optimization.feature_scaling import fit_scaling


def features(deviations: list[float], *, images: int = 400) -> np.ndarray:
    values = np.random.default_rng(0).normal(size=(images, len(deviations)))
    values = (values - values.mean(axis=0)) / values.std(axis=0)
    return (values * deviations + 3).astype(np.float32)


def test_each_channel_is_divided_by_the_root_of_its_deviation() -> None:
    found = fit_scaling(features([1.0, 0.25, 0.5, 1.0]))(features([1.0, 0.25, 0.5, 1.0])).std(axis=0)
    np.testing.assert_allclose(found / found[0], [1.0, 0.5, 0.5**0.5, 1.0], rtol=1e-3)
    assert np.square(found).mean() == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize(("power", "expected"), [(1.0, [1.0, 1.0]), (0.0, [1.0, 0.25])])
def test_the_ends_are_one_scale_for_all_and_a_scale_for_each(power: float, expected: list[float]) -> None:
    x = features([1.0, 0.25])
    found = fit_scaling(x, config=ScalingConfig(power=power, reference=1.0))(x).std(axis=0)
    np.testing.assert_allclose(found / found[0], expected, rtol=1e-3)


def test_a_channel_that_hardly_varies_keeps_to_the_floor_and_a_dead_one_has_no_part() -> None:
    x = features([1.0] * 8 + [1e-2, 1e-6])
    found = fit_scaling(x)(x).std(axis=0)
    assert found[8] / found[0] == pytest.approx(1e-2 / 0.1**0.5, rel=1e-2)
    assert found[9] == 0


@pytest.mark.parametrize("value", [1e2, 1e4, 1e8])
def test_a_channel_that_one_image_makes_huge_does_not_silence_the_others(value: float) -> None:
    x = features([1.0] * 20)
    x[7, 3] = value
    found = fit_scaling(x)(x).std(axis=0)
    assert found.max() / found.min() < 3.01
    assert found.min() > 0.5


def test_scales_of_one_network_do_not_depend_on_those_of_another() -> None:
    small, large = features([1.0, 0.5]), features([3.0, 2.0, 1.0]) * np.float32(1e4)
    joint = fit_scaling(np.concatenate([small, large], axis=1), blocks=[2, 3])
    np.testing.assert_allclose(joint.scale, np.concatenate([fit_scaling(small).scale, fit_scaling(large).scale]))


def test_a_layer_on_scaled_features_is_one_on_the_features() -> None:
    x = features([1.0, 0.2, 5.0, 1e-7])
    scaling = fit_scaling(x)
    rng = np.random.default_rng(1)
    weight, bias = rng.normal(size=(3, 4)), rng.normal(size=3)
    raw, raw_bias = scaling.on_raw(weight, bias)
    np.testing.assert_allclose(x @ raw.T + raw_bias, scaling(x) @ weight.T + bias, atol=1e-4)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_an_error_that_counts_them(value: float) -> None:
    x = features([1.0, 1.0])
    x[[3, 5], 1] = value
    with pytest.raises(NonFiniteError, match=r"features of 2 of 400 images are not finite"):
        fit_scaling(x)

"""Temperature scaling against a fine grid, scikit-learn's loss and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss

from tests.combining.toy import noisy
from tl_kit import metrics
from tl_kit.combining.calibration import TEMPERATURES, fit_temperature, tempered
from tl_kit.config import TemperatureConfig

quickly = settings(deadline=None, max_examples=40)
temperatures = st.floats(*TEMPERATURES)


@quickly
@given(st.integers(0, 2**32 - 1), temperatures)
def test_the_order_of_the_classes_stays(seed, temperature):
    p = np.random.default_rng(seed).dirichlet(np.ones(5), 20)
    found = tempered(p, temperature)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-12)
    assert np.array_equal(found.argmax(axis=1), p.argmax(axis=1))
    at_highest = np.take_along_axis(found, p.argmax(axis=1)[:, None], axis=1)
    assert (at_highest[:, 0] == found.max(axis=1)).all()


@quickly
@given(st.integers(0, 2**32 - 1), st.floats(0.3, 3))
def test_against_the_definition(seed, temperature):
    p = np.random.default_rng(seed).dirichlet(np.ones(3), 6).clip(1e-12)
    powers = p ** (1 / temperature)
    np.testing.assert_allclose(tempered(p, temperature), powers / powers.sum(axis=1, keepdims=True), atol=1e-10)


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 4.0])
@pytest.mark.parametrize(("images", "prior"), [(300, 0.0), (300, 8.0), (12, 8.0), (12, 100.0)])
def test_no_temperature_on_a_fine_grid_is_better(sharpness, images, prior):
    """The prior's images written out: each given one again, once under each label, as often as p says it has it."""
    stack, labels = noisy(0, images, members=1, sharpness=sharpness)
    p = stack[0]
    every, classes = np.repeat(p, p.shape[1], axis=0), np.tile(np.arange(p.shape[1]), images)
    weights = np.concatenate([np.ones(images), p.ravel() * prior / images])

    rows, truth = np.concatenate([p, every]), np.concatenate([labels, classes])
    eps = np.finfo(float).eps

    def loss(temperature):
        at_label = tempered(rows, temperature)[np.arange(len(rows)), truth]
        return np.average(-np.log(at_label.clip(eps, 1 - eps)), weights=weights)

    found = fit_temperature(p, labels, TemperatureConfig(prior_images=prior))
    lowest = log_loss(truth, tempered(rows, found), sample_weight=weights, labels=range(p.shape[1]))
    assert loss(found) == pytest.approx(lowest, abs=1e-12)
    for temperature in np.geomspace(*TEMPERATURES, 400):
        assert lowest <= loss(float(temperature)) + 1e-9


def test_few_images_with_one_mistake_do_not_tell_that_the_next_are_right():
    """49 of 50 right at 90 %: alone they ask for a T that costs more where 92 are right in 100."""
    p = np.full((50, 10), 0.1 / 9)
    p[:, 0] = 0.9
    labels = np.zeros(50, dtype=np.int64)
    labels[:1] = 1
    alone = fit_temperature(p, labels, TemperatureConfig(prior_images=0))
    held = fit_temperature(p, labels)
    assert alone < held < 1
    truth = np.zeros(100, dtype=np.int64)
    truth[:8] = 1
    test = np.repeat(p[:1], 100, axis=0)
    assert metrics.nll(tempered(test, held), truth) < metrics.nll(tempered(test, alone), truth)


def test_the_prior_alone_leaves_predictions_as_they_are():
    stack, labels = noisy(0, 40, members=1, sharpness=4.0)
    held = [fit_temperature(stack[0], labels, TemperatureConfig(prior_images=m)) for m in (0, 1, 10, 1e3, 1e9)]
    assert sorted(held, key=lambda t: abs(np.log(t)), reverse=True) == held
    assert held[-1] == pytest.approx(1, abs=1e-6)


def test_it_finds_the_scale_that_was_taken_away():
    """Labels drawn from q, predictions q to the power 1/2.5: the temperature that gives q back is 1/2.5."""
    rng = np.random.default_rng(0)
    q = rng.dirichlet(np.ones(4), 20_000)
    labels = (q.cumsum(axis=1) > rng.random((20_000, 1))).argmax(axis=1)
    assert fit_temperature(tempered(q, 2.5), labels) == pytest.approx(1 / 2.5, rel=0.03)
    assert fit_temperature(tempered(q, 0.5), labels) == pytest.approx(2.0, rel=0.03)


def test_ends_of_the_range():
    perfect, wrong = np.array([[0.6, 0.4], [0.4, 0.6]]), np.array([[0.4, 0.6], [0.6, 0.4]])
    labels = np.array([0, 1])
    assert fit_temperature(perfect, labels) == 1  # no mistake: there is no optimum
    assert fit_temperature(wrong, labels, TemperatureConfig(prior_images=0)) == TEMPERATURES[1]
    assert 1 < fit_temperature(wrong, labels, TemperatureConfig(prior_images=100)) < TEMPERATURES[1]
    assert fit_temperature(np.full((2, 2), 0.5), labels) == 1
    assert fit_temperature(np.eye(2), labels[::-1]) > 1  # certain, and always wrong: logs are clipped


def test_a_temperature_of_one_changes_no_bit():
    p = noisy(0, 30)[0][0]
    assert tempered(p, 1.0) is p

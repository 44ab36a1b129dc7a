"""Temperature scaling against a fine grid and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ensembling.toy import noisy
from tl_kit import metrics
from tl_kit.ensembling.calibration import TEMPERATURES, fit_temperature, tempered

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
def test_no_temperature_on_a_fine_grid_is_better(sharpness):
    stack, labels = noisy(0, 300, members=1, sharpness=sharpness)
    found = fit_temperature(stack[0], labels)
    lowest = metrics.nll(tempered(stack[0], found), labels)
    for temperature in np.geomspace(*TEMPERATURES, 400):
        assert lowest <= metrics.nll(tempered(stack[0], float(temperature)), labels) + 1e-9


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
    assert fit_temperature(wrong, labels) == TEMPERATURES[1]
    assert fit_temperature(np.full((2, 2), 0.5), labels) == 1


def test_a_temperature_of_one_changes_no_bit():
    p = noisy(0, 30)[0][0]
    assert tempered(p, 1.0) is p

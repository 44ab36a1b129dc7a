"""Rules against closed forms, and the invariances of a mean."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tl_kit import metrics
from tl_kit.ensembling.rules import RULES, combine, mean
from tl_kit.errors import ConfigError

no_deadline = settings(deadline=None)  # timings on a shared machine say nothing here


def make_stack(seed: int, members: int, images: int, classes: int):
    return np.random.default_rng(seed).dirichlet(np.ones(classes), (members, images))


UNFITTED = [name for name, rule in RULES.items() if rule.fit is None]

stacks = st.builds(make_stack, st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 20), st.integers(2, 10))


def test_mean_by_hand():
    stack = [[[0.2, 0.8], [1.0, 0.0]], [[0.6, 0.4], [0.5, 0.5]]]
    np.testing.assert_allclose(mean(stack), [[0.4, 0.6], [0.75, 0.25]], atol=1e-15)


@no_deadline
@given(stacks)
def test_mean_against_a_loop(stack):
    members, images, classes = stack.shape
    expected = [[sum(stack[m, i, c] for m in range(members)) / members for c in range(classes)] for i in range(images)]
    np.testing.assert_allclose(mean(stack), expected, atol=1e-14)


@pytest.mark.parametrize("rule", UNFITTED)
class TestEveryRule:
    @no_deadline
    @given(stack=stacks)
    def test_gives_probabilities(self, rule, stack):
        result = combine(rule, stack)
        assert result.shape == stack.shape[1:]
        assert result.dtype == np.float64
        assert result.min() >= 0
        np.testing.assert_allclose(result.sum(axis=1), 1, atol=1e-12)

    @no_deadline
    @given(stack=stacks, random=st.randoms(use_true_random=False))
    def test_order_of_members_images_and_classes_changes_nothing(self, rule, stack, random):
        members, images, classes = (random.sample(range(size), size) for size in stack.shape)
        shuffled = combine(rule, stack[np.ix_(members, images, classes)])
        np.testing.assert_allclose(shuffled, combine(rule, stack)[np.ix_(images, classes)], atol=1e-12)

    @no_deadline
    @given(stack=stacks, copies=st.integers(1, 7))
    def test_copies_of_one_member_are_that_member(self, rule, stack, copies):
        result = combine(rule, np.repeat(stack[:1], copies, axis=0))
        assert np.array_equal(result.argmax(axis=1), stack[0].argmax(axis=1))
        if rule != "vote":
            np.testing.assert_allclose(result, stack[0], atol=1e-12)

    @no_deadline
    @given(stack=stacks)
    def test_input_is_left_alone(self, rule, stack):
        copy = stack.copy()
        combine(rule, stack)
        assert np.array_equal(stack, copy)


@no_deadline
@given(stacks, st.integers(0, 2**32 - 1))
def test_mean_is_no_worse_than_the_mean_member(stack, seed):
    """Jensen: NLL and Brier score are convex in the probabilities, so the mean's loss is at most the losses' mean."""
    labels = np.random.default_rng(seed).integers(0, stack.shape[2], stack.shape[1])
    for loss in (metrics.nll, metrics.brier):
        assert loss(mean(stack), labels) <= np.mean([loss(member, labels) for member in stack]) + 1e-12


def test_float32_members_are_averaged_in_float64():
    stack = make_stack(0, 3, 4, 5).astype(np.float32)
    np.testing.assert_allclose(mean(stack), stack.astype(np.float64).mean(axis=0), rtol=1e-15)


@pytest.mark.parametrize("stack", [np.full((3, 2), 0.5), np.zeros((0, 3, 2)), [0.5, 0.5]])
def test_wrong_shapes_are_refused(stack):
    for call in (mean, lambda s: combine("mean", s)):
        with pytest.raises(ValueError, match="members, images, classes"):
            call(stack)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(value):
    stack = make_stack(0, 2, 3, 4)
    stack[1, 2, 3] = value
    with pytest.raises(ValueError, match="finite"):
        combine("mean", stack)


def test_an_unknown_rule_names_the_nearest():
    with pytest.raises(ConfigError, match=r"'meen'.*did you mean 'mean'") as caught:
        combine("meen", make_stack(0, 2, 3, 4))
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="'xyz': rules are mean, logit-mean, vote, weighted, greedy, stack, auto"):
        combine("xyz", make_stack(0, 2, 3, 4))


def test_the_registry_cannot_be_changed_from_outside():
    with pytest.raises(TypeError):
        RULES["other"] = mean

"""Rules against closed forms, and the invariances of a mean."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import gmean
from sklearn.ensemble import VotingClassifier
from sklearn.preprocessing import LabelEncoder

from tl_kit import metrics
from tl_kit.combining.ensemble_rules import RULES, check_rule, combine, logit_mean, mean, vote, weighted_mean
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
    with pytest.raises(ConfigError, match="'xyz': rules are mean, logit-mean, vote, weighted, greedy, stack"):
        combine("xyz", make_stack(0, 2, 3, 4))


def test_the_registry_cannot_be_changed_from_outside():
    with pytest.raises(TypeError):
        RULES["other"] = mean


def test_auto_is_a_choice_and_no_rule():
    check_rule("auto")
    with pytest.raises(ConfigError, match="unknown ensemble rule 'auto'"):
        combine("auto", make_stack(0, 2, 3, 4))


@no_deadline
@given(stacks)
def test_logit_mean_against_scipy(stack):
    expected = gmean(stack, axis=0)
    np.testing.assert_allclose(logit_mean(stack), expected / expected.sum(axis=1, keepdims=True), atol=1e-12)


def test_logit_mean_survives_zeros():
    result = logit_mean([[[0.0, 0.5, 0.5]], [[0.5, 0.0, 0.5]]])
    assert np.isfinite(result).all()
    assert result.argmax() == 2


class Fixed:
    """A scikit-learn classifier whose predictions are given, by the numbers of the images."""

    def __init__(self, probabilities):
        self.probabilities = probabilities

    def predict_proba(self, images):
        return self.probabilities[images[:, 0]]

    def predict(self, images):
        return self.predict_proba(images).argmax(axis=1)


def voting(stack, kind, weights=None):
    """scikit-learn's VotingClassifier over members that are already fitted."""
    found = VotingClassifier([], voting=kind, weights=weights)
    found.estimators_ = [Fixed(member) for member in stack]
    found.estimators = [(str(index), None) for index in range(len(stack))]
    found.le_ = LabelEncoder().fit(range(stack.shape[2]))
    found.classes_ = found.le_.classes_
    return found, np.arange(stack.shape[1])[:, None]


@pytest.mark.parametrize("seed", range(5))
def test_against_scikit_learns_voting(seed):
    stack = make_stack(seed, 5, 60, 4)
    soft, images = voting(stack, "soft")
    np.testing.assert_allclose(mean(stack), soft.predict_proba(images), atol=1e-14)
    weights = np.random.default_rng(seed).dirichlet(np.ones(5))
    soft, _ = voting(stack, "soft", weights)
    np.testing.assert_allclose(weighted_mean(stack, weights=weights), soft.predict_proba(images), atol=1e-14)
    hard, _ = voting(stack, "hard")
    votes = (stack.argmax(axis=2)[:, :, None] == np.arange(4)).sum(axis=0)
    untied = (votes == votes.max(axis=1, keepdims=True)).sum(axis=1) == 1
    assert 0 < untied.sum() < 60
    assert np.array_equal(vote(stack).argmax(axis=1)[untied], hard.predict(images)[untied])


@no_deadline
@given(stacks)
def test_vote_is_by_votes_then_by_mean_probability(stack):
    votes = (stack.argmax(axis=2)[:, :, None] == np.arange(stack.shape[2])).sum(axis=0)
    pooled = stack.mean(axis=0)
    for row, count, share in zip(vote(stack), votes, pooled, strict=True):
        by_hand = sorted(range(len(row)), key=lambda c: (-count[c], -share[c]))
        assert list(np.argsort(-row, kind="stable")) == by_hand
        np.testing.assert_allclose(row, (count + share) / (len(stack) + 1), atol=1e-15)


def test_no_mean_probability_outweighs_a_vote():
    """Two of five for class 0 by a hair, one each for the others: class 1, whose mean is far higher, stays below."""
    stack = np.array([[0.34, 0.33, 0.33], [0.34, 0.33, 0.33], [0, 1, 0], [0, 0, 1.0]])[:, None]
    assert stack.mean(axis=0)[0].argmax() != 0
    assert vote(stack)[0].argmax() == 0


def test_a_member_that_is_undecided_votes_with_the_others():
    """Whatever the order of the classes."""
    stack = np.array([[[0.5, 0.5, 0.0]], [[0.1, 0.3, 0.6]]])
    np.testing.assert_allclose(vote(stack), [[0.3 / 3, 1.4 / 3, 1.3 / 3]])
    np.testing.assert_allclose(vote(stack[:, :, ::-1]), [[1.3 / 3, 1.4 / 3, 0.3 / 3]])


@pytest.mark.parametrize("rule", UNFITTED)
def test_order_of_members_changes_not_even_the_rounding(rule):
    """Each image's classes are permutations of the same probabilities: exact ties that rounding could break."""
    base = make_stack(1, 1, 1, 6)[0, 0]
    stack = np.stack([np.stack([np.roll(base, shift + image) for image in range(6)]) for shift in range(6)])
    for seed in range(10):
        order = np.random.default_rng(seed).permutation(6)
        assert np.array_equal(combine(rule, stack[order]), combine(rule, stack))

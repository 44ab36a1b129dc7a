"""Fitted weights against the optimality conditions, a grid of all weights, and forward selection written out."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.combining.toy import QUICK, noisy
from tl_kit.combining.canonical_order import label_probabilities, stratified_folds
from tl_kit.combining.fitted_rule import fit_rule
from tl_kit.combining.simplex_weights import greedy_weights, optimality_gap, simplex_weights

quickly = settings(deadline=None, max_examples=25)


def loss(p, weights) -> float:
    return float(-np.log(weights @ p).mean())


def likelihoods(seed: int, members: int, images: int):
    return np.random.default_rng(seed).beta(0.7, 0.7, (members, images)).clip(1e-9)


problems = st.builds(likelihoods, st.integers(0, 2**32 - 1), st.integers(1, 7), st.integers(1, 60))


class TestSimplexWeights:
    @quickly
    @given(problems)
    def test_karush_kuhn_tucker(self, p):
        weights = simplex_weights(p)
        assert weights.min() >= 0
        assert weights.sum() == pytest.approx(1)
        gradient = (p / (weights @ p)).mean(axis=1)
        assert gradient.max() <= 1 + 1e-5
        np.testing.assert_allclose(gradient[weights > 1e-3], 1, atol=1e-4)
        assert optimality_gap(p, weights) == pytest.approx(max(0, gradient.max() - 1), abs=1e-9)

    @pytest.mark.parametrize("seed", range(6))
    def test_no_weights_on_a_grid_are_better(self, seed):
        p = likelihoods(seed, 3, 40)
        found = loss(p, simplex_weights(p))
        grid = [np.array([a, b, 50 - a - b]) / 50 for a, b in itertools.product(range(51), repeat=2) if a + b <= 50]
        lowest = min(loss(p, weights) for weights in grid)
        assert lowest - 0.02 < found <= lowest + 1e-9

    def test_the_gap_bounds_the_distance_to_the_optimum(self):
        p = likelihoods(3, 4, 50)
        best = loss(p, simplex_weights(p))
        for weights in np.random.default_rng(0).dirichlet(np.ones(4), 20):
            assert 0 <= loss(p, weights) - best <= optimality_gap(p, weights) + 1e-7

    def test_a_useless_member_gets_nothing(self):
        p = np.vstack([np.full(30, 0.9), np.full(30, 0.4)])
        np.testing.assert_allclose(simplex_weights(p), [1, 0], atol=1e-9)

    def test_impossible_labels_and_copies(self):
        p = np.zeros((3, 5))
        np.testing.assert_allclose(simplex_weights(p), 1 / 3)
        one = likelihoods(0, 1, 20)
        np.testing.assert_allclose(simplex_weights(np.repeat(one, 4, axis=0)), 1 / 4)


class TestGreedy:
    @staticmethod
    def by_hand(p, rounds):
        """Caruana et al. 2004 in lists."""
        order = sorted(range(len(p)), key=lambda j: -np.log(p[j]).mean())
        sets = [order[: size + 1] for size in range(len(p))]
        current = min(sets, key=lambda chosen: -np.log(p[chosen].mean(axis=0)).mean())
        seen = [current]
        for _ in range(rounds):
            options = [[*current, j] for j in range(len(p))]
            current = min(options, key=lambda chosen: -np.log(p[chosen].mean(axis=0)).mean())
            seen.append(current)
        best = min(seen, key=lambda chosen: -np.log(p[chosen].mean(axis=0)).mean())
        return np.bincount(best, minlength=len(p)) / len(best)

    @quickly
    @given(problems, st.integers(0, 12))
    def test_against_lists(self, p, rounds):
        found, expected = greedy_weights(p, rounds=rounds), self.by_hand(p, rounds)
        assert loss(p, found) == pytest.approx(loss(p, expected), abs=1e-9)

    @quickly
    @given(problems)
    def test_no_worse_than_mean_or_best_member_and_no_better_than_the_optimum(self, p):
        found = loss(p, greedy_weights(p, rounds=20))
        assert found <= min(-np.log(p).mean(axis=1)) + 1e-9
        assert found <= loss(p, np.full(len(p), 1 / len(p))) + 1e-9
        assert found >= loss(p, simplex_weights(p)) - 1e-6

    def test_many_rounds_come_near_the_optimum(self):
        p = likelihoods(5, 4, 60)
        assert loss(p, greedy_weights(p, rounds=400)) == pytest.approx(loss(p, simplex_weights(p)), abs=1e-4)

    def test_bags_average_subsets(self):
        p = np.linspace(0.1, 0.9, 6)[:, None].repeat(5, axis=1)  # the last member is the best on every image
        assert greedy_weights(p, rounds=10).tolist() == [0, 0, 0, 0, 0, 1]
        found = greedy_weights(p, rounds=10, bags=40, share=0.5, seed=1)
        assert found.sum() == pytest.approx(1)
        assert (np.diff(found[2:]) > 0).all()  # in half of the bags the best, in fewer the best of the others
        assert found[:2].tolist() == [0, 0]  # there are always two better ones
        assert np.array_equal(found, greedy_weights(p, rounds=10, bags=40, share=0.5, seed=1))


@pytest.mark.parametrize("rule", ["weighted", "greedy", "stack"])
class TestFittedRules:
    def test_order_of_members_changes_nothing(self, rule):
        stack, labels = noisy(0, 90, signal=[0.8, 1.2, 1.6])
        stack = np.concatenate([stack, stack[:1]])  # a copy: a tie between members
        fresh, _ = noisy(1, 40)
        fresh = np.concatenate([fresh, fresh[:1]])
        expected = fit_rule(rule, stack, labels, config=QUICK, seed=0)(fresh)
        for order in ([3, 2, 1, 0], [1, 0, 3, 2], [2, 3, 0, 1]):
            found = fit_rule(rule, stack[order], labels, config=QUICK, seed=0)(fresh[order])
            np.testing.assert_allclose(found, expected, atol=1e-12)

    def test_order_of_classes_changes_nothing(self, rule):
        stack, labels = noisy(0, 90)
        order = [2, 0, 3, 1]
        expected = fit_rule(rule, stack, labels, config=QUICK, seed=0)(stack)
        found = fit_rule(rule, stack[:, :, order], np.argsort(order)[labels], config=QUICK, seed=0)(stack[:, :, order])
        np.testing.assert_allclose(found, expected[:, order], atol=1e-4 if rule == "stack" else 1e-12)

    def test_copies_of_one_member(self, rule):
        stack, labels = noisy(0, 90, members=1)
        found = fit_rule(rule, np.repeat(stack, 4, axis=0), labels, config=QUICK, seed=0)(np.repeat(stack, 4, axis=0))
        if rule != "stack":  # which corrects a member also when it is the only one
            np.testing.assert_allclose(found, stack[0], atol=1e-12)

    def test_it_gives_probabilities_also_where_members_are_certain_and_wrong(self, rule):
        stack, labels = noisy(0, 60)
        stack[0] = np.eye(4)[(labels + 1) % 4]
        found = fit_rule(rule, stack, labels, config=QUICK, seed=0)(stack)
        assert found.min() >= 0
        np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-12)
        weights = fit_rule("weighted", stack, labels, config=QUICK, seed=0).parameters["weights"]
        assert weights[0] == pytest.approx(0, abs=1e-6)


@quickly
@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(2, 6), st.integers(0, 99))
def test_folds_are_stratified(labels, folds, seed):
    labels = np.array(labels)
    numbers = stratified_folds(labels, folds, seed=seed)
    used = min(folds, len(labels))
    assert set(numbers) == set(range(used))
    for chosen in [labels >= 0, *(labels == label for label in np.unique(labels))]:
        sizes = np.bincount(numbers[chosen], minlength=used)
        assert sizes.max() - sizes.min() <= 1
    assert np.array_equal(stratified_folds(9 - labels, folds, seed=seed), numbers)


def test_label_probabilities():
    assert label_probabilities(np.array([[[0.1, 0.9], [0.3, 0.7]]]), np.array([1, 0])).tolist() == [[0.9, 0.3]]

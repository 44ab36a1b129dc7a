"""Choices among made models are scored on images that had no part in them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.combining.toy import QUICK, noisy
from tl_kit import metrics
from tl_kit.combining.calibration import fit_temperature, tempered
from tl_kit.combining.canonical_order import stratified_folds
from tl_kit.combining.derived import Loss, choose_out_of_fold, loss_on, tried
from tl_kit.combining.ensemble_rules import SIMPLEST_FIRST
from tl_kit.combining.fitted_rule import FittedRule
from tl_kit.combining.selection import Candidate, choose_rule
from tl_kit.metrics import image_losses


def losses(p, labels):
    return 1 - metrics.accuracy(p, labels), metrics.bounded_nll(p, labels), metrics.nll(p, labels)


def best_of(count):
    return lambda loss: min(range(count), key=loss)


def surest_of(count):
    return lambda loss: min(range(count), key=lambda key: loss(key).bounded)


@pytest.mark.parametrize("calibrate", [False, True])
def test_each_fold_is_predicted_by_what_the_others_choose(calibrate):
    stack, labels = noisy(0, 60, members=4, sharpness=2.0)
    folds = stratified_folds(labels, 5, seed=0)
    chosen, pooled = choose_out_of_fold(best_of(4), stack.__getitem__, labels, folds=folds, calibrate=calibrate)

    def loss(member, rows):
        p = stack[member][rows]
        scaled = tempered(p, fit_temperature(p, labels[rows])) if calibrate else p
        return 1 - metrics.accuracy(p, labels[rows]), metrics.bounded_nll(scaled, labels[rows])

    assert chosen == min(range(4), key=lambda member: loss(member, np.full(60, True)))
    choices = set()
    for fold in range(5):
        out = folds == fold
        choice = min(range(4), key=lambda member: loss(member, ~out))
        choices.add(choice)
        assert np.array_equal(pooled[out], stack[choice][out])
    assert len(choices) > 1, "or the folds would test nothing"


def test_the_best_of_many_guesses_is_not_taken_for_good():
    """Each option has learnt a few images by heart, one many of them: out of fold, none is better than chance."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 10)
    options = rng.dirichlet(np.ones(4), (150, 40))
    folds = stratified_folds(labels, 5, seed=0)
    chosen, pooled = choose_out_of_fold(surest_of(150), options.__getitem__, labels, folds=folds, calibrate=False)
    chance = np.mean([metrics.nll(option, labels) for option in options])
    assert metrics.nll(options[chosen], labels) < chance - 0.4
    assert metrics.nll(pooled, labels) > chance - 0.2


def test_predictions_are_asked_for_by_need():
    stack, labels = noisy(0, 40, members=3)
    asked = []
    choose_out_of_fold(
        lambda loss: min((0, 2), key=loss),
        lambda key: (asked.append(key), stack[key])[1],
        labels,
        folds=stratified_folds(labels, 4, seed=0),
        calibrate=False,
    )
    assert set(asked) == {0, 2}


def test_tried_tells_what_was_asked_for():
    stack, labels = noisy(0, 40, members=3)
    found = tried(lambda loss: min((0, 2), key=loss), stack.__getitem__, labels, calibrate=False)
    assert found == {key: losses(stack[key], labels) for key in (0, 2)}


def test_a_loss_at_the_best_temperature_ignores_how_sure_one_is():
    stack, labels = noisy(0, 200, members=1)
    sure = tempered(stack[0], 0.4)
    assert loss_on(sure, labels, calibrate=True) == pytest.approx(loss_on(stack[0], labels, calibrate=True), abs=1e-6)
    assert loss_on(sure, labels, calibrate=False) == losses(sure, labels)


def test_losses_are_ordered_by_error_and_no_worse_means_in_both():
    assert Loss(0.1, 0.9, 0.9) < Loss(0.2, 0.1, 0.1) < Loss(0.2, 0.2, 0.2)
    assert not Loss(0.1, 0.9, 0.9).no_worse_than(Loss(0.2, 0.1, 0.1))
    assert not Loss(0.2, 0.1, 0.1).no_worse_than(Loss(0.1, 0.9, 0.9))
    assert Loss(0.1, 0.1, 0.1).no_worse_than(Loss(0.1, 0.1, 0.1))


class TestAuto:
    """How ``auto`` weighs rules that are no functions of the predictions."""

    @staticmethod
    def choose(stack, labels, **others):
        def candidate(probabilities):
            return lambda: Candidate(fitted=FittedRule(), pooled=probabilities, scored=probabilities)

        named = {name.replace("_", "-"): candidate(p) for name, p in others.items()}
        fit = dataclasses.replace(QUICK, stack_parameters=0)
        return choose_rule("auto", stack, labels, config=fit, calibrate=False, seed=0, others=named)

    def test_one_pass_is_preferred_where_it_cannot_be_told_apart(self):
        stack, labels = noisy(0, 300)
        stack = np.repeat(stack[:1], 3, axis=0)
        found, table = self.choose(stack, labels, soup=stack[0])
        assert [line["rule"] for line in table] == [
            r for r in SIMPLEST_FIRST if r not in ("greedy-soup", "wise-ft", "concat")
        ]
        assert next(line["rule"] for line in table if line["chosen"]) == "soup"
        assert np.array_equal(found.scored, stack[0])

    def test_a_soup_that_is_surely_worse_is_not(self):
        stack, labels = noisy(0, 300)
        worse = stack[0]
        losses = [image_losses(p, labels) for p in (worse, stack.mean(axis=0))]
        difference = losses[0] - losses[1]
        assert difference.mean() > difference.std(ddof=1) / np.sqrt(300)
        _, table = self.choose(stack, labels, soup=worse)
        assert not next(line["chosen"] for line in table if line["rule"] == "soup")

    def test_concat_comes_last_and_must_be_surely_better(self):
        stack, labels = noisy(0, 300)
        for concat, taken in ((stack.mean(axis=0), False), (np.eye(4)[labels] * 0.8 + 0.05, True)):
            _, table = self.choose(stack, labels, concat=concat)
            assert table[-1]["rule"] == "concat"
            assert table[-1]["chosen"] is taken

"""Selection uses validation out of fold, and changes its mind only for more than noise."""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np
import pytest

from tests.combining.toy import QUICK, noisy
from tl_kit import metrics
from tl_kit.combining.calibration import fit_temperature, tempered
from tl_kit.combining.canonical_order import stratified_folds
from tl_kit.combining.ensemble_rules import RULES
from tl_kit.combining.fitted_rule import FittedRule, fit_rule
from tl_kit.combining.selection import Candidate, choose_rule, fit_candidate
from tl_kit.combining.stacking import fit_stack
from tl_kit.errors import ConfigError
from tl_kit.metrics import image_losses

FITTED = [name for name, rule in RULES.items() if rule.fit is not None]
FIT = {"config": QUICK, "seed": 0}


def test_image_losses_are_those_of_the_metric():
    stack, labels = noisy(0, 50)
    stack[0, :3] = np.eye(4)[(labels[:3] + 1) % 4]
    assert image_losses(stack[0], labels).mean() == pytest.approx(metrics.nll(stack[0], labels), abs=1e-12)


@pytest.mark.parametrize("rule", FITTED)
def test_a_fitted_rule_is_scored_on_images_that_it_has_not_seen(rule):
    stack, labels = noisy(0, 60)
    found = fit_candidate(rule, stack, labels, calibrate=False, **FIT)
    folds = stratified_folds(labels, QUICK.folds, seed=0)
    out = folds == 1
    others = fit_rule(rule, stack[:, ~out], labels[~out], **FIT)
    np.testing.assert_allclose(found.scored[out], others(stack[:, out]), atol=1e-12)


def test_labels_of_noise_teach_nothing_out_of_fold():
    rng = np.random.default_rng(0)
    stack = rng.dirichlet(np.full(4, 5.0), (3, 120))
    labels = rng.permutation(np.repeat(np.arange(4), 30))
    found = fit_candidate(
        "stack", stack, labels, config=dataclasses.replace(QUICK, stack_c=(10.0,)), calibrate=False, seed=0
    )
    assert metrics.nll(found.fitted(stack), labels) < np.log(4) - 0.01  # it has learnt the images by heart
    assert metrics.nll(found.scored, labels) > np.log(4)


@pytest.mark.parametrize("rule", RULES)
def test_temperature_is_fitted_and_scored_out_of_fold(rule):
    stack, labels = noisy(0, 200, sharpness=3)
    found = fit_candidate(rule, stack, labels, calibrate=True, **FIT)
    raw = fit_candidate(rule, stack, labels, calibrate=False, **FIT)
    assert np.array_equal(found.pooled, raw.scored)
    assert raw.fitted.temperature == 1
    if found.fitted.temperature == 1:
        assert np.array_equal(found.scored, found.pooled)
        return
    assert found.fitted.temperature == fit_temperature(found.pooled, labels)
    assert metrics.nll(found.scored, labels) < metrics.nll(found.pooled, labels)
    assert np.array_equal(found.scored.argmax(axis=1), found.pooled.argmax(axis=1))
    out = stratified_folds(labels, QUICK.folds, seed=0) == 0
    expected = tempered(found.pooled[out], fit_temperature(found.pooled[~out], labels[~out]))
    np.testing.assert_allclose(found.scored[out], expected, atol=1e-12)


def test_a_temperature_that_does_not_help_is_left_out():
    rng = np.random.default_rng(3)
    q = rng.dirichlet(np.ones(4), 60)
    labels = (q.cumsum(axis=1) > rng.random((60, 1))).argmax(axis=1)
    exact = tempered(q, fit_temperature(q, labels))  # no other temperature is better than 1
    found = fit_candidate("mean", exact[None], labels, calibrate=True, **FIT)
    assert found.fitted.temperature == 1
    assert np.array_equal(found.scored, found.pooled)


class TestAuto:
    def test_the_best_of_several_is_estimated_without_having_been_chosen(self):
        """Candidates whose predictions have nothing to do with the labels: one is luckier than the others."""
        chosen, estimated, expected = [], [], []
        for seed in range(60):
            rng = np.random.default_rng(seed)
            labels = rng.permutation(np.repeat(np.arange(2), 10))
            predictions = [rng.dirichlet(np.full(2, 2.0), 20) for _ in range(5)]
            others = {
                name: partial(Candidate, fitted=FittedRule(), pooled=made, scored=made)
                for name, made in zip(("soup", "greedy-soup", "wise-ft", "concat"), predictions[1:], strict=True)
            }
            config = dataclasses.replace(QUICK, stack_parameters=0, greedy_rounds=1)
            stack = predictions[0][None]
            found, _ = choose_rule("auto", stack, labels, config=config, seed=0, calibrate=False, others=others)
            chosen.append(metrics.nll(found.scored, labels))
            estimated.append(metrics.nll(found.estimate, labels))
            expected.append(np.mean([metrics.nll(made, labels) for made in predictions]))
        error = np.std(np.subtract(estimated, expected)) / np.sqrt(60)
        assert np.mean(chosen) < np.mean(expected) - 3 * error, "what validation chose looks better than it is"
        assert np.mean(estimated) == pytest.approx(np.mean(expected), abs=3 * error)

    def test_a_rule_that_was_asked_for_is_estimated_as_it_is_scored(self):
        stack, labels = noisy(0, 60)
        found, _ = choose_rule("mean", stack, labels, calibrate=False, **FIT)
        assert np.array_equal(found.estimate, found.scored)

    def test_equal_members_are_averaged(self):
        stack, labels = noisy(0, 300)
        found, table = choose_rule("auto", stack, labels, calibrate=True, **FIT)
        assert [line["rule"] for line in table] == list(RULES)
        assert [line["rule"] for line in table if line["chosen"]] == [found.fitted.rule]
        assert found.fitted.rule in ("mean", "logit-mean")

    def test_copies_cannot_be_told_apart_so_the_simplest_is_taken(self):
        stack, labels = noisy(0, 100, members=1)
        without_stack = dataclasses.replace(QUICK, stack_parameters=0)
        stack = np.repeat(stack, 3, axis=0)
        found, table = choose_rule("auto", stack, labels, config=without_stack, calibrate=False, seed=0)
        by_name = {line["rule"]: line for line in table}
        for rule in ("logit-mean", "weighted", "greedy"):
            assert by_name[rule]["nll_over_mean"] == pytest.approx(0, abs=1e-9)
        assert found.fitted.rule == "mean"

    def test_a_useless_majority_is_weighted_down(self):
        signal = [6.0, 0.0, 0.0, 0.0, 0.0]
        stack, labels = noisy(0, 300, members=5, signal=signal, sharpness=1.5)
        found, table = choose_rule("auto", stack, labels, calibrate=False, **FIT)
        assert found.fitted.rule in FITTED
        by_name = {line["rule"]: line for line in table}
        chosen = by_name[found.fitted.rule]
        assert chosen["nll_over_mean"] < -chosen["standard_error"]
        losses = {
            rule: image_losses(fit_candidate(rule, stack, labels, calibrate=False, **FIT).scored, labels)
            for rule in RULES
        }
        for rule, line in by_name.items():
            difference = losses[rule] - losses["mean"]
            assert line["nll"] == pytest.approx(losses[rule].mean())
            assert line["standard_error"] == pytest.approx(difference.std(ddof=1) / np.sqrt(300))
        best = min(losses, key=lambda rule: losses[rule].mean())
        over_best = losses[found.fitted.rule] - losses[best]
        assert over_best.mean() <= over_best.std(ddof=1) / np.sqrt(300)

    def test_rules_that_cannot_be_fitted_are_left_out_with_the_reason(self):
        stack, labels = noisy(0, 40)
        labels[labels == 3] = 2
        labels[0] = 3
        _, table = choose_rule("auto", stack, labels, calibrate=True, **FIT)
        assert table[-1]["rule"] == "stack"
        assert table[-1]["refused"] == "needs three validation images of every class"
        assert table[-1]["nll"] is None
        small = dataclasses.replace(QUICK, stack_parameters=10)
        _, table = choose_rule("auto", *noisy(0, 40), config=small, calibrate=True, seed=0)
        assert table[-1]["refused"] == "would have 48 parameters"


def test_one_image_is_enough_for_a_mean_and_too_little_for_a_fit():
    stack, labels = noisy(0, 12)
    found, _ = choose_rule("auto", stack[:, :1], labels[:1], calibrate=True, **FIT)
    assert found.fitted == FittedRule()
    with pytest.raises(ConfigError, match=r"weighted.*--rule"):
        choose_rule("weighted", stack[:, :1], labels[:1], calibrate=True, **FIT)
    with pytest.raises(ConfigError, match=r"stack.*three validation images"):
        choose_rule("stack", stack[:, :5], labels[:5], calibrate=True, **FIT)


@pytest.mark.parametrize("classes", [2, 3])
def test_stack_is_scikit_learns_regression_on_log_probabilities(classes):
    from sklearn.linear_model import LogisticRegression

    stack, labels = noisy(0, 120, classes=classes)
    found = fit_rule("stack", stack, labels, config=dataclasses.replace(QUICK, stack_c=(0.1,)), seed=0)
    features = np.hstack([np.log(member) for member in stack])
    model = LogisticRegression(C=0.1, tol=1e-8, max_iter=5000).fit(features, labels)
    fresh, _ = noisy(1, 30, classes=classes)
    expected = model.predict_proba(np.hstack([np.log(member) for member in fresh]))
    np.testing.assert_allclose(found(fresh), expected, atol=2e-4)


def test_the_penalty_is_the_one_of_lowest_cross_validated_nll():
    stack, labels = noisy(0, 90)
    config = dataclasses.replace(QUICK, stack_c=(1e-6, 1e-1))
    assert fit_stack(stack, labels, config=config, seed=0)[2] == 1e-1  # the other one predicts the classes' shares


class TestJson:
    @pytest.mark.parametrize("rule", RULES)
    def test_round_trip(self, rule):
        import json

        stack, labels = noisy(0, 60)
        fitted = dataclasses.replace(fit_rule(rule, stack, labels, **FIT), temperature=1.7)
        back = FittedRule.from_dict(json.loads(json.dumps(fitted.to_dict())), members=3, classes=4)
        assert back == fitted
        assert np.array_equal(back(stack), fitted(stack))

    def test_what_was_written_before_there_were_parameters(self):
        assert FittedRule.from_dict({"rule": "mean"}, members=3, classes=4) == FittedRule()

    @pytest.mark.parametrize(
        "content",
        [
            {},
            {"rule": "median"},
            {"rule": ["mean"]},
            {"rule": "mean", "temperature": 0},
            {"rule": "mean", "temperature": "1"},
            {"rule": "mean", "temperature": float("nan")},
            {"rule": "mean", "temperature": True},
            {"rule": "mean", "parameters": {"weights": [1, 0, 0]}},
            {"rule": "mean", "parameters": []},
            {"rule": "weighted"},
            {"rule": "weighted", "parameters": {"weights": [0.5, 0.5]}},
            {"rule": "weighted", "parameters": {"weights": [1.5, -0.5, 0]}},
            {"rule": "weighted", "parameters": {"weights": [1, 1, 1]}},
            {"rule": "weighted", "parameters": {"weights": ["a", "b", "c"]}},
            {"rule": "weighted", "parameters": {"weights": [1, [0], 0]}},
            {"rule": "weighted", "parameters": {"weights": [float("inf"), 0, 0]}},
            {"rule": "stack", "parameters": {"coefficients": [[0]], "intercepts": [0] * 4, "c": 1}},
        ],
    )
    def test_broken_content_is_refused(self, content):
        with pytest.raises(ValueError, match=r"rule|temperature|weights|coefficients"):
            FittedRule.from_dict(content, members=3, classes=4)

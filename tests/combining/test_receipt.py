"""The receipt against its own definition."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.combining.toy import QUICK, noisy
from tl_kit import metrics
from tl_kit.combining.bootstrap import paired_bootstrap, paired_gain, paired_interval
from tl_kit.combining.calibration import fit_temperature, tempered
from tl_kit.combining.contributions import Subsets
from tl_kit.combining.ensemble_rules import combine
from tl_kit.combining.fitted_rule import FittedRule
from tl_kit.combining.predictions import SplitPredictions
from tl_kit.combining.receipt import best_member, build_receipt
from tl_kit.combining.selection import choose_rule
from tl_kit.reports.sentences import findings, verdict


def one_member(accuracy_and_nll):
    accuracy, nll = accuracy_and_nll
    return {"checkpoint": "x", "val": {"accuracy": accuracy, "nll": nll}, "test": None}


def subsets_of(val, *, rule="mean", calibrate=False, seed=0):
    stack, labels = val
    fit = {"config": QUICK, "seed": seed}
    whole, comparison = choose_rule(rule, stack, labels, calibrate=calibrate, **fit)
    return Subsets(whole=whole, stack=stack, labels=labels, **fit), comparison


def receipt_of(names, val, test, *, samples=500, **options):
    subsets, comparison = subsets_of(val, **options)
    split = None if test is None else SplitPredictions(members=test[0], labels=test[1])
    given = {"validation": subsets, "test": split, "samples": samples, "seed": subsets.seed, "comparison": comparison}
    return build_receipt(list(names), subsets.whole.fitted, **given)


class TestReceipt:
    def test_scores(self):
        val, test = noisy(0, 200), noisy(1, 300)
        receipt = receipt_of("abc", val, test)
        assert receipt["rule"] == "mean"
        assert receipt["images"] == {"val": 200, "test": 300}
        assert [member["checkpoint"] for member in receipt["members"]] == ["a", "b", "c"]
        for index, member in enumerate(receipt["members"]):
            assert member["val"] == metrics.summary(val[0][index], val[1])
            assert member["test"] == metrics.summary(test[0][index], test[1])
        for split, (stack, labels) in (("val", val), ("test", test)):
            assert receipt["ensemble"][split] == pytest.approx(metrics.summary(stack.mean(axis=0), labels))
        assert json.loads(json.dumps(receipt, allow_nan=False)) == receipt

    @pytest.mark.parametrize("rule", ["auto", "stack", "greedy", "weighted", "vote"])
    @pytest.mark.parametrize("test", [None, noisy(1, 60)])
    def test_every_receipt_is_plain_json_and_speaks(self, rule, test):
        receipt = receipt_of("abc", noisy(0, 80), test, rule=rule, calibrate=True, samples=50)
        assert json.loads(json.dumps(receipt, allow_nan=False)) == receipt
        assert all("\n" not in line for line in [verdict(receipt), *findings(receipt)])

    def test_the_gain_is_over_the_best_member_by_validation_not_by_test(self):
        val, (members, labels) = noisy(0, 400), noisy(1, 800)
        by_val = [metrics.accuracy(member, val[1]) for member in val[0]]
        order = np.argsort(by_val)  # the best on validation becomes the worst on test, and so on
        stack = np.empty_like(members)
        stack[order] = members[np.argsort([metrics.accuracy(member, labels) for member in members])[::-1]]
        receipt = receipt_of("abc", val, (stack, labels))
        scores = [member["test"]["accuracy"] for member in receipt["members"]]
        assert np.argmax(by_val) == np.argmin(scores) != np.argmax(scores)
        best = stack[np.argmax(by_val)]
        pair = [metrics.correct(p, labels) for p in (best, stack.mean(axis=0))]
        gain, lo, hi = paired_bootstrap(*pair, samples=500, seed=0)
        assert gain == pytest.approx(receipt["ensemble"]["test"]["accuracy"] - min(scores), abs=1e-12)
        assert (receipt["gain"]["accuracy"], receipt["gain"]["ci95"]) == (gain, [lo, hi])
        difference = receipt["ensemble"]["test"]["nll"] - metrics.nll(best, labels)
        assert receipt["gain"]["nll"] == pytest.approx(difference, abs=1e-12)
        assert receipt["gain"]["nll_ci95"][0] < difference < receipt["gain"]["nll_ci95"][1] < 0

    def test_the_gain_over_the_mean_member(self):
        val, (stack, labels) = noisy(0, 200), noisy(1, 300)
        receipt = receipt_of("abc", val, (stack, labels))
        gain = receipt["gain_over_mean_member"]
        for score in ("accuracy", "nll"):
            members = np.mean([member["test"][score] for member in receipt["members"]])
            assert gain[score] == pytest.approx(receipt["ensemble"]["test"][score] - members, abs=1e-12)
        hits = np.mean([metrics.correct(member, labels) for member in stack], axis=0)
        difference = metrics.correct(stack.mean(axis=0), labels) - hits
        assert gain["ci95"] == pytest.approx(paired_interval(difference, samples=500, seed=0)[1:])

    def test_with_a_temperature_members_are_given_one_too(self):
        val, (stack, labels) = noisy(0, 300, sharpness=3), noisy(1, 300, sharpness=3)
        receipt = receipt_of("abc", val, (stack, labels), calibrate=True)
        temperature = receipt["calibration"]["temperature"]
        assert temperature != 1
        ensemble = metrics.nll(tempered(stack.mean(axis=0), temperature), labels)
        scales = [fit_temperature(member, val[1]) for member in val[0]]
        members = [metrics.nll(tempered(p, scale), labels) for p, scale in zip(stack, scales, strict=True)]
        assert receipt["ensemble"]["test"]["nll"] == pytest.approx(ensemble)
        assert receipt["gain_over_mean_member"]["nll"] == pytest.approx(ensemble - np.mean(members))
        before_and_after = receipt["calibration"]["test"]
        for name, p in (("before", stack.mean(axis=0)), ("after", tempered(stack.mean(axis=0), temperature))):
            assert before_and_after[name] == pytest.approx(
                {"nll": metrics.nll(p, labels), "ece": metrics.ece(p, labels)}
            )
        assert any("Temperature" in line for line in findings(receipt))

    def test_without_test_split(self):
        receipt = receipt_of("abc", noisy(0, 50), None)
        assert receipt["gain"] is None
        assert receipt["gain_over_mean_member"] is None
        assert receipt["ensemble"]["test"] is None
        assert [member["test"] for member in receipt["members"]] == [None] * 3
        assert "not measured" in verdict(receipt)

    @pytest.mark.parametrize("calibrate", [False, True])
    def test_copies_of_one_member_gain_nothing(self, calibrate):
        splits = [(np.repeat(stack[:1], 3, axis=0), labels) for stack, labels in (noisy(0, 100), noisy(1, 100))]
        receipt = receipt_of("aaa", *splits, calibrate=calibrate)
        for gain in (receipt["gain"], receipt["gain_over_mean_member"]):
            assert gain["accuracy"] == 0
            assert gain["ci95"] == [0, 0]
            assert [gain["nll"], *gain["nll_ci95"]] == pytest.approx([0, 0, 0], abs=1e-6)
        assert "not distinguishable from zero" in verdict(receipt) or not any(receipt["gain"]["nll_ci95"])
        assert np.count_nonzero(receipt["disagreement"]["test"]) == 0
        assert len(receipt["smallest_subset"]["members"]) == 1

    @pytest.mark.parametrize(("rule", "copies"), [("mean", 3), ("mean", 5), ("logit-mean", 5), ("weighted", 7)])
    def test_rounding_of_copies_is_no_gain_in_nll(self, rule, copies):
        for seed in range(3):
            splits = [
                (np.repeat(stack, copies, axis=0), labels)
                for stack, labels in (noisy(seed, 120, members=1), noisy(seed + 100, 150, members=1))
            ]
            for calibrate in (False, True):
                receipt = receipt_of("a" * copies, *splits, rule=rule, calibrate=calibrate, samples=200)
                lines = [line for line in findings(receipt) if line.startswith("Test NLL")]
                assert len(lines) in (1, 2)  # that against the best member is left out where all is the same
                assert all("not distinguishable from zero" in line for line in lines)
                assert len(receipt["smallest_subset"]["members"]) == 1

    @pytest.mark.parametrize("rule", ["mean", "logit-mean", "vote", "weighted", "greedy", "stack", "auto"])
    def test_order_of_members_changes_only_their_order(self, rule):
        val, test = noisy(0, 90), noisy(1, 80)
        order = [2, 0, 1]
        options = {"rule": rule, "calibrate": True, "samples": 100}
        first = receipt_of("abc", val, test, **options)
        second = receipt_of("cab", *((stack[order], labels) for stack, labels in (val, test)), **options)
        for index, member in zip(order, second["members"], strict=True):
            expected = first["members"][index]
            assert {key: member[key] for key in ("checkpoint", "val", "test")} == {
                key: expected[key] for key in ("checkpoint", "val", "test")
            }
            for split in ("val", "test"):
                found, wanted = member["leave_one_out"][split], expected["leave_one_out"][split]
                assert found == pytest.approx(wanted, abs=1e-9)
        assert second["rule"] == first["rule"]
        assert second["gain"]["accuracy"] == first["gain"]["accuracy"]
        for split in ("val", "test"):
            assert second["ensemble"][split] == pytest.approx(first["ensemble"][split], abs=1e-9)
        named = [
            sorted(r["members"][m - 1]["checkpoint"] for m in r["smallest_subset"]["members"]) for r in (first, second)
        ]
        assert named[0] == named[1]

    @pytest.mark.parametrize(
        ("scores", "best"),
        [
            ([(0.8, 0.1), (0.9, 0.5), (0.7, 0.0)], 1),
            ([(0.9, 0.5), (0.9, 0.4), (0.8, 0.1)], 1),
            ([(0.8, 0.1), (0.9, 0.4), (0.9, 0.4)], 1),
            ([(0.5, 9.0)], 0),
        ],
    )
    def test_best_member(self, scores, best):
        assert best_member([one_member(score) for score in scores]) == best

    @pytest.mark.parametrize("names", ["", "a", "abcd"])
    def test_names_must_be_one_a_member(self, names):
        with pytest.raises(ValueError, match="members"):
            receipt_of(names, noisy(0, 30), None)

    def test_val_and_test_must_have_the_same_members(self):
        with pytest.raises(ValueError, match="members"):
            receipt_of("ab", noisy(0, 30, members=2), noisy(1, 30))

    def test_shapes_must_fit(self):
        stack, labels = noisy(0, 20)
        for wrong in ((stack[0], labels), (stack, labels[:-1])):
            with pytest.raises(ValueError, match="want"):
                SplitPredictions(members=wrong[0], labels=wrong[1])


class TestVerdict:
    @staticmethod
    def sentence(accuracy, lo, hi):
        members = [
            one_member((0.8, 1.0)) | {"checkpoint": "ckpts/a"},
            one_member((0.9, 1.0)) | {"checkpoint": "ckpts/b"},
        ]
        gain = {"accuracy": accuracy, "ci95": [lo, hi], "nll": 0.1, "nll_ci95": [0.0, 0.2]}
        return verdict({"rule": "mean", "members": members, "ensemble": {"val": {}, "test": {}}, "gain": gain})

    def test_gain(self):
        assert self.sentence(0.024, 0.005, 0.043) == (
            "Gain over the best member by validation (ckpts/b): +2.4 points of test accuracy "
            "(95 % interval +0.5 to +4.3), distinguishable from zero."
        )

    @pytest.mark.parametrize(("lo", "hi"), [(-0.01, 0.03), (0.0, 0.03), (-0.03, 0.0), (0.0, 0.0)])
    def test_noise(self, lo, hi):
        assert "not distinguishable from zero" in self.sentence((lo + hi) / 2, lo, hi)

    def test_loss(self):
        sentence = self.sentence(-0.03, -0.05, -0.01)
        assert "distinguishable from zero: the best member alone is better" in sentence
        assert "not distinguishable" not in sentence

    def test_a_model_is_not_compared_with_itself(self):
        receipt = receipt_of("ab", noisy(0, 60, members=2), noisy(1, 60, members=2))
        receipt["gain"] |= {"accuracy": 0.0, "ci95": [0.0, 0.0], "nll": 0.0, "nll_ci95": [0.0, 0.0]}
        assert verdict(receipt).endswith(": none, its predictions are the same.")
        assert not any("against the best member" in line for line in findings(receipt))
        receipt["gain"]["nll_ci95"] = [0.0, 0.1]
        assert verdict(receipt).endswith("not distinguishable from zero.")
        assert any("against the best member" in line for line in findings(receipt))

    def test_a_difference_that_rounds_to_zero_has_more_digits(self):
        receipt = receipt_of("ab", noisy(0, 60, members=2), noisy(1, 60, members=2))
        receipt["gain"] |= {"nll": -0.00013, "nll_ci95": [-0.0002, -0.00006]}
        line = next(line for line in findings(receipt) if "against the best member" in line)
        assert line.endswith("against the best member: -0.0001 (-0.0002 to -0.0001), distinguishable from zero.")

    def test_equal_members_gain_and_a_good_one_among_useless_ones_is_better_alone(self):
        receipts = [
            receipt_of("abc", noisy(0, 300, signal=signal), noisy(1, 300, signal=signal))
            for signal in ([1.2] * 3, [3.0, 0.0, 0.0])
        ]
        assert verdict(receipts[0]).endswith("), distinguishable from zero.")
        assert verdict(receipts[1]).endswith("), distinguishable from zero: the best member alone is better.")
        for receipt in receipts:
            lines = findings(receipt)
            assert lines[0].startswith("Gain over the mean member: +")
            assert lines[1].startswith("Test NLL against the best member: ")
        assert lines[3].startswith("Smallest subset that val NLL cannot tell to be worse than the whole: 1 of 3, a (")


def test_a_rule_that_the_sentences_do_not_know_is_told_by_its_members():
    receipt = receipt_of("ab", noisy(0, 60, members=2), None, samples=20)
    receipt["derived"] = {"rule": "sharpened", "ingredients": [{"checkpoint": "a"}, {"checkpoint": "b"}]}
    assert "sharpened: made of a, b." in findings(receipt)


def test_without_validation_there_is_no_best_member_and_members_still_count():
    stack, labels = noisy(1, 300)
    test = SplitPredictions(members=stack, labels=labels)
    given = {"test": test, "samples": 200, "seed": 0}
    receipt = build_receipt(list("abc"), FittedRule("vote"), validation=None, **given)
    assert (receipt["gain"], receipt["images"]) == (None, {"val": None, "test": 300})
    pooled = combine("vote", stack)
    assert receipt["gain_over_mean_member"] == paired_gain(pooled, list(stack), labels, samples=200, seed=0)
    without = metrics.accuracy(combine("vote", stack[1:]), labels)
    left_out = receipt["members"][0]["leave_one_out"]
    assert left_out["val"] is None
    assert left_out["test"]["accuracy"] == metrics.accuracy(pooled, labels) - without
    empty = build_receipt(list("abc"), FittedRule("vote"), **(given | {"test": None}), validation=None)
    assert [empty["gain_over_mean_member"], empty["members"][0]["leave_one_out"]] == [None, None]
    assert "not measured" in verdict(empty)

"""The bootstrap against direct resampling and known coverage; the receipt against its own definition."""

from __future__ import annotations

import dataclasses
import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tl_kit import metrics
from tl_kit.ensembling.receipt import SplitPredictions, best_member, build_receipt, paired_bootstrap, verdict
from tl_kit.ensembling.rules import combine
from tl_kit.errors import ConfigError

no_deadline = settings(deadline=None)  # timings on a shared machine say nothing here
SETTINGS = {"samples": 500, "seed": 0}


def pair(wins: int, losses: int, ties: int):
    """Results of a and b where b wins, loses, and both are right or wrong in turn."""
    both = np.arange(ties) % 2 == 0
    a = np.concatenate([np.zeros(wins, bool), np.ones(losses, bool), both])
    b = np.concatenate([np.ones(wins, bool), np.zeros(losses, bool), both])
    return a, b


class TestPairedBootstrap:
    @pytest.mark.parametrize("counts", [(30, 10, 160), (3, 9, 38), (20, 20, 10), (6, 0, 0), (0, 8, 92), (7, 7, 0)])
    def test_against_resampling_the_images(self, counts):
        a, b = pair(*counts)
        gain, lo, hi = paired_bootstrap(a, b, samples=20_000, seed=1)
        rng = np.random.default_rng(2)
        images = rng.integers(0, a.size, (20_000, a.size))
        resampled = b[images].mean(axis=1) - a[images].mean(axis=1)
        expected_lo, expected_hi = np.quantile(resampled, [0.025, 0.975])
        assert gain == pytest.approx(b.mean() - a.mean(), abs=1e-12)
        step = 1 / a.size + 1e-9  # the statistic moves in steps of one image
        assert lo == pytest.approx(expected_lo, abs=step)
        assert hi == pytest.approx(expected_hi, abs=step)

    def test_against_the_normal_approximation(self):
        a, b = pair(900, 600, 8500)
        gain, lo, hi = paired_bootstrap(a, b, samples=20_000, seed=3)
        error = np.std(b.astype(float) - a.astype(float)) / np.sqrt(a.size)
        assert gain == pytest.approx(0.03)
        assert (lo, hi) == pytest.approx((gain - 1.96 * error, gain + 1.96 * error), abs=3e-4)

    @pytest.mark.parametrize("shares", [(0.12, 0.06), (0.05, 0.05), (0.3, 0.1)])
    def test_the_interval_covers_the_true_gain_in_about_95_of_100_data_sets(self, shares):
        win, lose = shares
        rng = np.random.default_rng(4)
        covered = 0
        for seed in range(600):
            wins, losses, ties = rng.multinomial(300, [win, lose, 1 - win - lose])
            _, lo, hi = paired_bootstrap(*pair(wins, losses, ties), samples=400, seed=seed)
            covered += lo <= win - lose <= hi
        assert 0.92 <= covered / 600 <= 0.98

    @no_deadline
    @given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(0, 1000))
    def test_identical_results_gain_exactly_nothing(self, results, seed):
        assert paired_bootstrap(results, results, samples=50, seed=seed) == (0.0, 0.0, 0.0)

    @no_deadline
    @given(st.integers(0, 25), st.integers(0, 25), st.integers(0, 25), st.integers(0, 1000))
    def test_bounds_repetition_and_order_of_images(self, wins, losses, ties, seed):
        a, b = pair(wins, losses, ties + 1)
        gain, lo, hi = paired_bootstrap(a, b, samples=200, seed=seed)
        assert -1 <= lo <= hi <= 1
        shuffle = np.random.default_rng(seed).permutation(a.size)
        assert paired_bootstrap(a[shuffle], b[shuffle], samples=200, seed=seed) == (gain, lo, hi)
        assert paired_bootstrap(b, a, samples=200, seed=seed)[0] == -gain
        assert all(type(value) is float for value in (gain, lo, hi))

    @pytest.mark.parametrize("images", range(1, 6))
    def test_too_few_images_never_prove_anything(self, images):
        gain, lo, hi = paired_bootstrap(*pair(images, 0, 0), samples=200, seed=0)
        assert (gain, lo, hi) == (1, 0, 1)
        gain, lo, hi = paired_bootstrap(*pair(0, images, 200), samples=200, seed=0)
        assert lo < gain < 0
        assert hi == 0

    def test_a_real_gain_is_seen(self):
        _, lo, _ = paired_bootstrap(*pair(30, 8, 334), samples=2000, seed=0)
        assert lo > 0

    def test_memory_does_not_grow_with_images_times_samples(self):
        a, b = pair(40_000, 30_000, 930_000)
        tracemalloc.start()
        paired_bootstrap(a, b, samples=5000, seed=0)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 10 * a.size  # one index matrix would take 8 · 5000 bytes an image

    @pytest.mark.parametrize(
        ("a", "b"), [([], []), ([True], [True, False]), ([0.5], [1.0]), ([[True]], [[True]]), ([1, 0], [1, 1])]
    )
    def test_wrong_input_is_refused(self, a, b):
        with pytest.raises(ValueError, match="two bool arrays"):
            paired_bootstrap(a, b, samples=10, seed=0)

    def test_samples_must_be_positive(self):
        with pytest.raises(ConfigError, match="bootstrap"):
            paired_bootstrap([True], [False], samples=0, seed=0)


def noisy(seed: int, images: int, *, members: int = 3, classes: int = 4):
    """Members that see the label through independent noise, so that their mean sees it better."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, images)
    logits = 1.2 * np.eye(classes)[labels] + rng.normal(size=(members, images, classes))
    stack = metrics.softmax(logits)
    return SplitPredictions(members=stack, ensemble=combine("mean", stack), labels=labels)


def one_member(accuracy_and_nll):
    accuracy, nll = accuracy_and_nll
    return {"checkpoint": "x", "val": {"accuracy": accuracy, "nll": nll}, "test": None}


class TestReceipt:
    def test_contents(self):
        val, test = noisy(0, 400), noisy(1, 800)
        receipt = build_receipt("mean", ["a", "b", "c"], val=val, test=test, **SETTINGS)
        assert list(receipt) == ["rule", "members", "ensemble", "gain"]
        assert receipt["rule"] == "mean"
        assert [member["checkpoint"] for member in receipt["members"]] == ["a", "b", "c"]
        for index, member in enumerate(receipt["members"]):
            assert list(member) == ["checkpoint", "val", "test"]
            assert member["val"] == metrics.summary(val.members[index], val.labels)
            assert member["test"] == metrics.summary(test.members[index], test.labels)
        assert receipt["ensemble"] == {
            "val": metrics.summary(val.ensemble, val.labels),
            "test": metrics.summary(test.ensemble, test.labels),
        }
        assert list(receipt["gain"]) == ["accuracy", "ci95"]
        assert json.loads(json.dumps(receipt, allow_nan=False)) == receipt

    def test_the_gain_is_over_the_best_member_by_validation_not_by_test(self):
        val, test = noisy(0, 400), noisy(1, 800)
        by_val = [metrics.accuracy(member, val.labels) for member in val.members]
        order = np.argsort(by_val)  # the best on validation becomes the worst on test, and so on
        ranked = np.argsort([metrics.accuracy(member, test.labels) for member in test.members])[::-1]
        members = np.empty_like(test.members)
        members[order] = test.members[ranked]
        test = dataclasses.replace(test, members=members)
        receipt = build_receipt("mean", ["a", "b", "c"], val=val, test=test, **SETTINGS)
        scores = [member["test"]["accuracy"] for member in receipt["members"]]
        assert np.argmax(by_val) == np.argmin(scores) != np.argmax(scores)
        gain, lo, hi = paired_bootstrap(
            metrics.correct(members[np.argmax(by_val)], test.labels),
            metrics.correct(test.ensemble, test.labels),
            **SETTINGS,
        )
        assert gain == pytest.approx(receipt["ensemble"]["test"]["accuracy"] - min(scores), abs=1e-12)
        assert receipt["gain"] == {"accuracy": gain, "ci95": [lo, hi]}

    def test_without_test_split(self):
        receipt = build_receipt("mean", ["a", "b", "c"], val=noisy(0, 50), test=None, **SETTINGS)
        assert receipt["gain"] is None
        assert receipt["ensemble"]["test"] is None
        assert [member["test"] for member in receipt["members"]] == [None] * 3
        assert "not measured" in verdict(receipt)

    def test_copies_of_one_member_gain_nothing(self):
        splits = []
        for seed in (0, 1):
            split = noisy(seed, 100)
            stack = np.repeat(split.members[:1], 3, axis=0)
            splits.append(SplitPredictions(members=stack, ensemble=combine("mean", stack), labels=split.labels))
        receipt = build_receipt("mean", ["a", "a", "a"], val=splits[0], test=splits[1], **SETTINGS)
        assert receipt["gain"] == {"accuracy": 0.0, "ci95": [0.0, 0.0]}
        assert receipt["ensemble"]["test"] == pytest.approx(receipt["members"][0]["test"], abs=1e-12)
        assert "not distinguishable from zero" in verdict(receipt)

    def test_order_of_members_changes_only_their_order(self):
        val, test = noisy(0, 120), noisy(1, 130)
        order = [2, 0, 1]

        def reorder(split):
            stack = split.members[order]
            return dataclasses.replace(split, members=stack, ensemble=combine("mean", stack))

        first = build_receipt("mean", ["a", "b", "c"], val=val, test=test, **SETTINGS)
        second = build_receipt("mean", ["c", "a", "b"], val=reorder(val), test=reorder(test), **SETTINGS)
        assert second["members"] == [first["members"][i] for i in order]
        assert second["gain"] == first["gain"]
        for split in ("val", "test"):
            assert second["ensemble"][split] == pytest.approx(first["ensemble"][split], abs=1e-12)

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

    @pytest.mark.parametrize("checkpoints", [[], ["a"], ["a", "b", "c", "d"]])
    def test_names_must_be_one_a_member(self, checkpoints):
        with pytest.raises(ValueError, match="members"):
            build_receipt("mean", checkpoints, val=noisy(0, 20), test=None, **SETTINGS)

    def test_val_and_test_must_have_the_same_members(self):
        with pytest.raises(ValueError, match="members"):
            build_receipt("mean", ["a", "b"], val=noisy(0, 20, members=2), test=noisy(1, 20), **SETTINGS)

    @pytest.mark.parametrize("field", ["members", "ensemble", "labels"])
    def test_shapes_must_fit(self, field):
        split = noisy(0, 20)
        with pytest.raises(ValueError, match="want"):
            dataclasses.replace(split, **{field: getattr(split, field)[..., :-1]})


class TestVerdict:
    @staticmethod
    def sentence(accuracy, lo, hi):
        members = [
            one_member((0.8, 1.0)) | {"checkpoint": "ckpts/a"},
            one_member((0.9, 1.0)) | {"checkpoint": "ckpts/b"},
        ]
        gain = {"accuracy": accuracy, "ci95": [lo, hi]}
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

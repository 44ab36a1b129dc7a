"""Metrics against closed forms, slow loops, scikit-learn and what must not change them."""

from __future__ import annotations

import math
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, f1_score, log_loss
from sklearn.metrics import confusion_matrix as sklearn_confusion

from tests import children
from tl_kit import metrics

no_deadline = settings(deadline=None)  # timings on a shared machine say nothing here
KEYS = ["accuracy", "balanced_accuracy", "macro_f1", "nll", "brier", "ece"]
SUMMARIES = [
    metrics.accuracy,
    metrics.balanced_accuracy,
    metrics.macro_f1,
    metrics.nll,
    metrics.brier,
    metrics.ece,
]


def sample(seed: int, *, images: int, classes: int, sharpness: float = 1.0):
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.full(classes, 1 / sharpness), images), rng.integers(0, classes, images)


cases = st.builds(
    sample,
    st.integers(0, 2**32 - 1),
    images=st.integers(1, 40),
    classes=st.integers(2, 12),
    sharpness=st.sampled_from([0.2, 1.0, 5.0]),
)


def slow_ece(probabilities, labels, bins):
    """Naeini et al.: Σ |B|/n · |acc - conf|, with each bin's members listed by comparing interval ends."""
    total = 0.0
    for b in range(bins):
        inside = [
            (max(row), float(list(row).index(max(row)) == label))
            for row, label in zip(probabilities.tolist(), labels.tolist(), strict=True)
            if b / bins < max(row) and (max(row) <= (b + 1) / bins or b == bins - 1)
        ]
        if inside:
            confidence, hits = (sum(column) / len(inside) for column in zip(*inside, strict=True))
            total += len(inside) / len(labels) * abs(hits - confidence)
    return total


def slow_brier(probabilities, labels):
    total = 0.0
    for row, label in zip(probabilities.tolist(), labels.tolist(), strict=True):
        for c, p in enumerate(row):
            total += (p - (1.0 if c == label else 0.0)) ** 2
    return total / len(labels)


def slow_per_class(probabilities, labels):
    """(precision, recall, f1, support) from counted true and false positives and negatives."""
    predicted = [row.index(max(row)) for row in probabilities.tolist()]
    table = []
    for c in range(probabilities.shape[1]):
        hit = sum(p == c and y == c for p, y in zip(predicted, labels, strict=True))
        claimed, support = predicted.count(c), labels.tolist().count(c)
        precision, recall = hit / claimed if claimed else 0.0, hit / support if support else 0.0
        f1 = 2 * hit / (claimed + support) if claimed + support else 0.0
        table.append((precision, recall, f1, support))
    return table


class TestClosedForms:
    def test_three_images_by_hand(self):
        probabilities = np.array([[0.7, 0.2, 0.1], [0.1, 0.5, 0.4], [0.25, 0.6, 0.15]])
        labels = np.array([0, 1, 2])
        result = metrics.summary(probabilities, labels)
        assert list(result) == KEYS
        assert result["accuracy"] == pytest.approx(2 / 3)
        assert result["balanced_accuracy"] == pytest.approx((1 + 1 + 0) / 3)
        # F1: class 0 is 1, class 1 has precision 1/2 and recall 1, class 2 has no hit.
        assert result["macro_f1"] == pytest.approx((1 + 2 / 3 + 0) / 3)
        assert result["nll"] == pytest.approx(-(math.log(0.7) + math.log(0.5) + math.log(0.15)) / 3)
        squares = (0.09 + 0.04 + 0.01) + (0.01 + 0.25 + 0.16) + (0.0625 + 0.36 + 0.7225)
        assert result["brier"] == pytest.approx(squares / 3)
        assert result["ece"] == pytest.approx((0.3 + 0.5 + 0.6) / 3)  # 0.7, 0.5 and 0.6 lie in three bins

    @pytest.mark.parametrize("classes", [2, 3, 10, 1000])
    def test_uniform_probabilities(self, classes):
        labels = np.arange(classes)
        uniform = np.full((classes, classes), 1 / classes)
        assert metrics.nll(uniform, labels) == pytest.approx(math.log(classes))
        assert metrics.brier(uniform, labels) == pytest.approx(1 - 1 / classes)
        assert metrics.accuracy(uniform, labels) == pytest.approx(1 / classes)  # all ties go to class 0
        assert metrics.ece(uniform, labels) == pytest.approx(0, abs=1e-12)

    def test_certain_and_right(self):
        result = metrics.summary(np.eye(4), np.arange(4))
        expected = {"accuracy": 1, "balanced_accuracy": 1, "macro_f1": 1, "nll": 0, "brier": 0, "ece": 0}
        assert result == pytest.approx(expected, abs=1e-15)

    def test_certain_and_wrong_is_finite(self):
        result = metrics.summary(np.eye(4), np.array([1, 2, 3, 0]))
        worst_nll = -math.log(np.finfo(np.float64).eps)
        expected = {"accuracy": 0, "balanced_accuracy": 0, "macro_f1": 0, "nll": worst_nll, "brier": 2, "ece": 1}
        assert result == pytest.approx(expected)
        assert worst_nll == pytest.approx(36.04, abs=0.005)

    def test_two_classes_is_twice_the_binary_brier_score(self):
        probabilities, labels = sample(0, images=50, classes=2)
        binary = np.mean((probabilities[:, 1] - labels) ** 2)
        assert metrics.brier(probabilities, labels) == pytest.approx(2 * binary)

    def test_every_class_that_has_images_counts_the_same_in_balanced_accuracy(self):
        # Class 0 has 8 images, 6 of them right; class 1 one of one; class 2 none, though it is predicted.
        predicted = np.array([0, 0, 0, 0, 0, 0, 1, 2, 1])
        probabilities, labels = np.eye(3)[predicted], np.array([0] * 8 + [1])
        assert metrics.balanced_accuracy(probabilities, labels) == pytest.approx((6 / 8 + 1) / 2)
        assert metrics.accuracy(probabilities, labels) == pytest.approx(7 / 9)

    @pytest.mark.parametrize("weight", [1, 2, 5])
    def test_an_image_of_whole_weight_counts_as_so_many_in_the_nll(self, weight):
        probabilities, labels = sample(7, images=20, classes=3)
        weights = np.where(labels == 1, weight, 1)
        times = weights.astype(int)
        repeated = metrics.nll(np.repeat(probabilities, times, axis=0), np.repeat(labels, times))
        assert metrics.nll(probabilities, labels, weights=weights) == pytest.approx(repeated, abs=1e-12)

    def test_absent_classes_do_not_lower_macro_f1(self):
        probabilities, labels = sample(1, images=60, classes=4)
        wider = np.hstack([probabilities, np.zeros((60, 3))])
        assert metrics.macro_f1(wider, labels) == pytest.approx(metrics.macro_f1(probabilities, labels))

    def test_a_predicted_class_that_nobody_has_lowers_macro_f1(self):
        probabilities = np.array([[0.9, 0.1, 0.0], [0.9, 0.1, 0.0], [0.1, 0.9, 0.0]])
        # Class 0: precision 1, recall 2/3, F1 0.8; class 1: predicted once, never true, F1 0; class 2: nowhere.
        assert metrics.macro_f1(probabilities, np.zeros(3, dtype=int)) == pytest.approx(0.4)

    def test_ece_bin_edges_belong_to_the_lower_bin(self):
        # With 5 bins, 0.6 is the end of (0.4, 0.6], so it shares a bin with 0.5: |(1 + 0) - (0.6 + 0.5)| / 2.
        probabilities, labels = np.array([[0.6, 0.4], [0.5, 0.5]]), np.array([0, 1])
        assert metrics.ece(probabilities, labels, bins=5) == pytest.approx(0.05)
        # With 2 bins, 0.5 ends the first: |0 - 0.5| / 2 + |1 - 0.6| / 2.
        assert metrics.ece(probabilities, labels, bins=2) == pytest.approx(0.45)

    def test_ece_of_a_confidence_rounded_above_one_is_in_the_last_bin(self):
        probabilities, labels = np.array([[1.00001, 0.0], [0.95, 0.05]]), np.array([1, 0])
        assert metrics.ece(probabilities, labels) == pytest.approx((1.00001 - (1 - 0.95)) / 2)

    def test_one_bin_is_the_gap_of_the_means(self):
        probabilities, labels = sample(2, images=80, classes=5)
        gap = abs(metrics.accuracy(probabilities, labels) - probabilities.max(axis=1).mean())
        assert metrics.ece(probabilities, labels, bins=1) == pytest.approx(gap)

    def test_calibrated_probabilities_have_small_ece_and_sharpened_ones_do_not(self):
        rng = np.random.default_rng(3)
        probabilities = rng.dirichlet(np.ones(3), 20_000)
        labels = (rng.random((20_000, 1)) > probabilities.cumsum(axis=1)[:, :2]).sum(axis=1)
        sharpened = probabilities**4 / (probabilities**4).sum(axis=1, keepdims=True)
        assert metrics.ece(probabilities, labels) < 0.015
        assert metrics.ece(sharpened, labels) > 0.15
        assert metrics.nll(probabilities, labels) < metrics.nll(sharpened, labels)
        assert metrics.brier(probabilities, labels) < metrics.brier(sharpened, labels)


class TestReferences:
    @no_deadline
    @given(cases, st.integers(1, 20))
    def test_ece_and_brier_against_loops(self, case, bins):
        assert metrics.ece(*case, bins=bins) == pytest.approx(slow_ece(*case, bins), abs=1e-12)
        assert metrics.brier(*case) == pytest.approx(slow_brier(*case), abs=1e-12)

    @no_deadline
    @given(cases)
    def test_per_class_against_counting(self, case):
        probabilities, labels = case
        names = [f"class {c}" for c in range(probabilities.shape[1])]
        result = metrics.per_class(probabilities, labels, names)
        assert list(result) == names
        for entry, expected in zip(result.values(), slow_per_class(probabilities, labels), strict=True):
            assert list(entry) == ["precision", "recall", "f1", "support"]
            assert tuple(entry.values()) == pytest.approx(expected, abs=1e-12)
            assert type(entry["support"]) is int

    @no_deadline
    @given(cases)
    def test_against_scikit_learn(self, case):
        probabilities, labels = case
        predicted, classes = probabilities.argmax(axis=1), range(probabilities.shape[1])
        result = metrics.summary(*case)
        assert result["macro_f1"] == pytest.approx(f1_score(labels, predicted, average="macro", zero_division=0))
        assert result["nll"] == pytest.approx(log_loss(labels, probabilities, labels=classes))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # at predicted classes that no label has
            assert result["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, predicted))
        assert metrics.confusion(*case) == sklearn_confusion(labels, predicted, labels=classes).tolist()


class TestProperties:
    @no_deadline
    @given(cases, st.randoms(use_true_random=False))
    def test_order_of_images_and_classes_changes_nothing(self, case, random):
        probabilities, labels = case
        images, classes = list(range(len(labels))), list(range(probabilities.shape[1]))
        random.shuffle(images)
        random.shuffle(classes)  # column j of the shuffled matrix is class classes[j]
        shuffled = probabilities[images][:, classes]
        renumbered = np.argsort(classes)[labels[images]]
        assert metrics.summary(shuffled, renumbered) == pytest.approx(metrics.summary(*case), abs=1e-12)
        table = np.array(metrics.confusion(*case))
        assert metrics.confusion(shuffled, renumbered) == table[np.ix_(classes, classes)].tolist()

    @no_deadline
    @given(cases)
    def test_bounds_and_agreement_of_the_functions(self, case):
        result = metrics.summary(*case)
        assert list(result) == KEYS
        assert all(type(value) is float for value in result.values())
        assert [function(*case) for function in SUMMARIES] == list(result.values())
        assert 0 <= result["accuracy"] <= 1
        assert 0 <= result["balanced_accuracy"] <= 1
        assert 0 <= result["macro_f1"] <= 1
        assert 0 < result["nll"] < 36.05
        assert 0 <= result["brier"] <= 2
        assert 0 <= result["ece"] <= 1
        assert np.mean(metrics.correct(*case)) == pytest.approx(result["accuracy"])

    @no_deadline
    @given(cases)
    def test_confusion_sums(self, case):
        probabilities, labels = case
        table = metrics.confusion(*case)
        assert [sum(row) for row in table] == np.bincount(labels, minlength=probabilities.shape[1]).tolist()
        assert sum(table[c][c] for c in range(len(table))) == metrics.correct(*case).sum()
        assert all(type(count) is int for row in table for count in row)

    @no_deadline
    @given(cases)
    def test_repeating_all_images_changes_nothing(self, case):
        probabilities, labels = case
        repeated = np.tile(probabilities, (3, 1)), np.tile(labels, 3)
        assert metrics.summary(*repeated) == pytest.approx(metrics.summary(*case), abs=1e-12)

    def test_float32_probabilities_and_other_integer_types_are_taken_as_they_are(self):
        logits = np.random.default_rng(4).normal(size=(30, 1000)).astype(np.float32)
        exponentials = np.exp(logits)
        single = exponentials / exponentials.sum(axis=1, keepdims=True)
        labels = np.arange(30, dtype=np.uint8)
        assert single.dtype == np.float32
        expected = metrics.summary(metrics.softmax(logits), labels.astype(np.int64))
        assert metrics.summary(single, labels) == pytest.approx(expected, abs=1e-5)

    def test_inputs_are_left_alone(self):
        probabilities, labels = sample(5, images=9, classes=3)
        copies = probabilities.copy(), labels.copy()
        metrics.summary(probabilities, labels)
        metrics.per_class(probabilities, labels, ["a", "b", "c"])
        assert np.array_equal(probabilities, copies[0])
        assert np.array_equal(labels, copies[1])

    def test_as_many_classes_as_images(self):
        """A warning (an error here) is what scikit-learn has for labels that look like a regression's."""
        probabilities, _ = sample(6, images=50, classes=50)
        labels = np.arange(50)
        assert set(metrics.summary(probabilities, labels)) == set(KEYS)
        assert len(metrics.per_class(probabilities, labels, [str(c) for c in labels])) == 50
        assert np.sum(metrics.confusion(probabilities, labels)) == 50

    def test_that_warning_is_silent_whatever_version_is_installed(self, monkeypatch):
        text = "The number of unique classes is greater than 50% of the number of samples."

        def warn(original):
            def warned(*given, **options):
                warnings.warn(text, stacklevel=2)
                return original(*given, **options)

            return warned

        for name in ("accuracy_score", "confusion_matrix", "precision_recall_fscore_support"):
            monkeypatch.setattr(sklearn.metrics, name, warn(getattr(sklearn.metrics, name)))
        probabilities, labels = sample(6, images=9, classes=3)
        metrics.summary(probabilities, labels)
        metrics.per_class(probabilities, labels, ["a", "b", "c"])
        metrics.confusion(probabilities, labels)


class TestSoftmax:
    def test_closed_form_and_shift(self):
        logits = np.log([[1.0, 2.0, 5.0], [4.0, 4.0, 8.0]])
        expected = [[0.125, 0.25, 0.625], [0.25, 0.25, 0.5]]
        np.testing.assert_allclose(metrics.softmax(logits), expected, atol=1e-15)
        np.testing.assert_allclose(metrics.softmax(logits + 1e4), expected, atol=1e-11)

    def test_stack_of_members_and_integers(self):
        logits = np.arange(24).reshape(2, 3, 4)
        result = metrics.softmax(logits)
        assert result.dtype == np.float64
        np.testing.assert_allclose(result[1, 2], metrics.softmax(logits[1, 2]))
        np.testing.assert_allclose(result.sum(axis=-1), np.ones((2, 3)))

    def test_huge_logits(self):
        largest = np.finfo(np.float64).max
        assert metrics.softmax([largest, -largest, largest]).tolist() == [0.5, 0.0, 0.5]

    @pytest.mark.parametrize("logits", [[0.0, np.nan], [np.inf, 0.0], [0.0, -np.inf]])
    def test_not_finite_is_refused(self, logits):
        with pytest.raises(ValueError, match="finite"):
            metrics.softmax(logits)

    @pytest.mark.parametrize("logits", [3.0, [], np.zeros((4, 0))])
    def test_no_classes_is_refused(self, logits):
        with pytest.raises(ValueError, match="shape"):
            metrics.softmax(logits)


class TestValidation:
    GOOD = ((0.5, 0.5), (0.2, 0.8))
    CASES = (
        (np.array(GOOD)[0], [0, 1], "probabilities \\(n, k\\)"),
        (GOOD, [[0], [1]], "labels \\(n,\\)"),
        (GOOD, [0, 1, 1], "probabilities \\(n, k\\)"),
        (np.zeros((0, 3)), [], "no images"),
        ([[1.0], [1.0]], [0, 0], "two classes"),
        (GOOD, [0.0, 1.0], "integers"),
        (GOOD, [True, False], "integers"),
        (GOOD, [0, 2], r"0\.\.1, got 0\.\.2"),
        (GOOD, [-1, 1], r"0\.\.1, got -1\.\.1"),
        ([[0.5, 0.5], [np.nan, 1.0]], [0, 1], "finite"),
        ([[0.5, 0.5], [np.inf, 0.0]], [0, 1], "finite"),
        ([[0.5, 0.5], [-0.5, 1.5]], [0, 1], "negative"),
        ([[0.5, 0.5], [0.5, 0.6]], [0, 1], "row 1 sums to 1.1"),
    )

    @pytest.mark.parametrize(("probabilities", "labels", "message"), CASES)
    @pytest.mark.parametrize("function", [*SUMMARIES, metrics.summary, metrics.correct, metrics.confusion])
    def test_refused(self, function, probabilities, labels, message):
        with pytest.raises(ValueError, match=message) as caught:
            function(probabilities, labels)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("names", [["a"], ["a", "b", "c"], ["a", "a"]])
    def test_class_names_must_fit(self, names):
        with pytest.raises(ValueError, match="2 different names"):
            metrics.per_class(self.GOOD, [0, 1], names)

    def test_bins_must_be_positive(self):
        with pytest.raises(ValueError, match="bins"):
            metrics.ece(self.GOOD, [0, 1], bins=0)


def test_importing_metrics_does_not_import_scikit_learn():
    code = "import sys, tl_kit.metrics; sys.exit('sklearn' in sys.modules)"
    root = Path(metrics.__file__).parents[1]
    assert children.run([sys.executable, "-c", code], cwd=root).returncode == 0

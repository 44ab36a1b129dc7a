"""Leave-one-out and the smallest subset against their definitions, refitted from scratch."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tests.combining.test_receipt import subsets_of
from tests.combining.toy import noisy
from tl_kit import metrics
from tl_kit.combining.bootstrap import paired_interval
from tl_kit.combining.contributions import leave_one_out, smallest_subset
from tl_kit.combining.diversity import disagreement
from tl_kit.combining.predictions import SplitPredictions
from tl_kit.metrics import image_losses


@pytest.mark.parametrize("rule", ["mean", "logit-mean", "weighted"])
def test_leave_one_out_is_the_ensemble_of_the_others(rule):
    val, (test, labels) = noisy(0, 90), noisy(1, 70)
    subsets, _ = subsets_of(val, rule=rule, calibrate=True)
    found = leave_one_out(
        subsets.whole.fitted, len(test), validation=subsets, test=SplitPredictions(members=test, labels=labels)
    )
    for left_out, value in enumerate(found):
        kept = [member for member in range(3) if member != left_out]
        others, _ = subsets_of((val[0][kept], val[1]), rule=rule, calibrate=subsets.whole.fitted.temperature != 1)
        whole, without = subsets.whole.fitted(test), others.whole.fitted(test[kept])
        assert value["test"]["nll"] == pytest.approx(metrics.nll(without, labels) - metrics.nll(whole, labels))
        accuracy = metrics.accuracy(whole, labels) - metrics.accuracy(without, labels)
        assert value["test"]["accuracy"] == pytest.approx(accuracy)
        scored = metrics.nll(others.whole.scored, val[1]) - metrics.nll(subsets.whole.scored, val[1])
        assert value["val"]["nll"] == pytest.approx(scored)


def test_a_member_that_knows_nothing_is_worth_less_than_one_that_knows():
    subsets, _ = subsets_of(noisy(0, 300, signal=[2.0, 2.0, 0.0]))
    values = [
        member["val"]["nll"]
        for member in leave_one_out(subsets.whole.fitted, len(subsets.stack), validation=subsets, test=None)
    ]
    assert values[2] < 0 < min(values[:2])


@pytest.mark.parametrize("signal", [[1.0] * 4, [3.0, 3.0, 0.2, 0.2], [4.0, 0.5, 0.5, 0.5]])
def test_smallest_subset_against_all_subsets(signal):
    stack, labels = noisy(0, 200, members=4, signal=signal)
    subsets, _ = subsets_of((stack, labels))
    found = smallest_subset(subsets, test=None, samples=500)
    whole = image_losses(stack.mean(axis=0), labels)
    size = len(found["members"])
    by_size = {n: list(itertools.combinations(range(4), n)) for n in range(1, 5)}
    losses = {c: image_losses(stack[list(c)].mean(axis=0), labels) for n in by_size for c in by_size[n]}
    chosen = tuple(member - 1 for member in found["members"])
    difference, lo, hi = paired_interval(losses[chosen] - whole, samples=500, seed=0)
    assert found["nll_over_whole"] == pytest.approx(difference, abs=1e-12)
    assert found["ci95"] == pytest.approx([lo, hi])
    assert lo <= 0
    assert losses[chosen].mean() == pytest.approx(min(losses[c].mean() for c in by_size[size]))
    for smaller in by_size.get(size - 1, []):
        assert paired_interval(losses[smaller] - whole, samples=500, seed=0)[1] > 0


def test_one_good_member_among_useless_ones_is_subset_enough():
    subsets, _ = subsets_of(noisy(0, 300, signal=[0.0, 4.0, 0.0]))
    test, labels = noisy(1, 100, signal=[0.0, 4.0, 0.0])
    found = smallest_subset(subsets, test=SplitPredictions(members=test, labels=labels), samples=300)
    assert found["members"] == [2]
    assert found["ci95"][1] < 0  # it is better than the whole
    assert found["test"] == pytest.approx({n: metrics.summary(test[1], labels)[n] for n in ("accuracy", "nll")})


def test_disagreement_by_hand():
    eye = np.eye(3)
    stack = np.stack([eye[[0, 1, 2, 0]], eye[[0, 1, 2, 1]], eye[[1, 2, 0, 0]]])
    assert disagreement(stack) == [[0, 0.25, 0.75], [0.25, 0, 1], [0.75, 1, 0]]

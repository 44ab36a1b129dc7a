"""A head on features side by side equals the members' classifiers pooled by their geometric mean."""

from __future__ import annotations

import numpy as np
import pytest

from tl_kit import metrics
from tl_kit.combining.calibration import tempered
from tl_kit.combining.fitted_rule import FittedRule
from tl_kit.config import HeadConfig
from tl_kit.ensembling.concatenated_head import block_probabilities, fit_blocks
from tl_kit.training.logistic_regression import fit_heads

POOL = FittedRule("logit-mean")


def features(seed: int, images: int, widths=(5, 3, 8), classes: int = 4):
    """Of several members, each scaled otherwise; and labels (n,)."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, images - classes)])
    centres = np.random.default_rng(0).normal(size=(sum(widths), classes))
    joint = centres.T[labels] + rng.normal(size=(images, sum(widths)))
    parts = np.split(joint, np.cumsum(widths)[:-1], axis=1)
    return [(10.0**n * part + n).astype(np.float32) for n, part in enumerate(parts)], labels


def at(strength):
    return HeadConfig(strengths=(strength,), fine=1e-6)


def fitted(train, labels, *, strength):
    (blocks,) = fit_blocks(train, labels, 4, config=at(strength)).values()
    return blocks


def joint_head(train, labels, strength):
    widths = [part.shape[1] for part in train]
    (head,) = fit_heads(np.concatenate(train, axis=1), labels, 4, blocks=widths, config=at(strength))
    return head


@pytest.mark.parametrize("strength", [0.1, 10.0, 100.0])
@pytest.mark.parametrize("temperature", [1.0, 0.6, 2.5])
def test_the_pool_equals_the_joint_head_s_softmax(strength, temperature):
    train, labels = features(1, 120)
    fresh, _ = features(2, 50)
    blocks = fitted(train, labels, strength=strength)
    head = joint_head(train, labels, strength)
    logits = np.concatenate(fresh, axis=1).astype(np.float64) @ head.weight.T + head.bias
    expected = tempered(metrics.softmax(logits), temperature)
    found = FittedRule("logit-mean", temperature=temperature)(block_probabilities(blocks, fresh, views=1))
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_it_learns_more_than_each_member_knows():
    train, labels = features(1, 300)
    fresh, truth = features(2, 300)
    together = POOL(block_probabilities(fitted(train, labels, strength=10.0), fresh, views=1))
    alone = [
        POOL(block_probabilities(fitted([t], labels, strength=10.0), [f], views=1))
        for t, f in zip(train, fresh, strict=True)
    ]
    assert metrics.nll(together, truth) < min(metrics.nll(p, truth) for p in alone) - 0.05


def test_copies_of_one_member_are_one_member_with_another_penalty():
    """m copies share the weight: Σ w²/m is penalised, as if C were m times as large."""
    train, labels = features(1, 100, widths=(6,))
    fresh, _ = features(2, 40, widths=(6,))
    three = POOL(block_probabilities(fitted(train * 3, labels, strength=1.0), fresh * 3, views=1))
    one = POOL(block_probabilities(fitted(train, labels, strength=3.0), fresh, views=1))
    np.testing.assert_allclose(three, one, atol=1e-3)


def test_penalties_are_in_their_order_each_under_its_c():
    train, labels = features(1, 100)
    config = HeadConfig(strengths=(10.0, 1.0))
    assert list(fit_blocks(train, labels, 4, config=config)) == [0.01, 0.1]


def test_views_of_an_image_are_averaged_within_each_member():
    train, labels = features(1, 100)
    fresh, _ = features(2, 40)
    blocks = fitted(train, labels, strength=10.0)
    single = block_probabilities(blocks, fresh, views=1)
    pairs = block_probabilities(blocks, fresh, views=2)
    np.testing.assert_allclose(pairs, (single[:, ::2] + single[:, 1::2]) / 2)

"""Predictions of members that see the labels through noise of their own."""

from __future__ import annotations

import numpy as np

from tl_kit import metrics
from tl_kit.config import RuleFitConfig

QUICK = RuleFitConfig(folds=3, greedy_rounds=15, stack_c=(1e-2, 1e-1))


def noisy(seed: int, images: int, *, members: int = 3, classes: int = 4, signal=1.2, sharpness: float = 1.0):
    """A stack (m, n, k) and labels (n,). Independent noise: the mean of the members sees the labels better.

    ``signal`` is one number, or one a member.
    """
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.repeat(np.arange(classes), 3), rng.integers(0, classes, images - 3 * classes)])
    strength = np.broadcast_to(signal, members)[:, None, None]
    logits = strength * np.eye(classes)[labels] + rng.normal(size=(members, images, classes))
    return metrics.softmax(sharpness * logits), labels

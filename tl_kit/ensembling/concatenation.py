"""One linear head on the members' features side by side, taken apart into a classifier for each member.

The joint head's logits are z = b + Σ_j W_j f_j. With the classifier z_j = m W_j f_j + b in each of m members, z is the
mean of the z_j, and softmax(z) their normalised geometric mean: the rule ``logit-mean``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tl_kit import metrics
from tl_kit.config import HeadConfig
from tl_kit.training.head import fit_head

__all__ = ["Blocks", "block_probabilities", "fit_blocks"]

Floats32 = NDArray[np.float32]
Blocks = list[tuple[Floats32, Floats32]]
"""Weight (k, f_j) and bias (k,) of each member's classifier."""


def fit_blocks(
    features: Sequence[Floats32], labels: NDArray[np.int64], classes: int, *, strength: float, config: HeadConfig
) -> Blocks:
    """The penalised logistic regression on all members' features, taken apart.

    Args:
        features: of each member, (n, f_j).
        labels: (n,), at least two classes.
        classes: k.
        strength: C, on standardised features.
        config: how it is fitted.
    """
    joint = np.concatenate(features, axis=1)
    none = np.empty((0, joint.shape[1]), dtype=np.float32)
    fit = fit_head(
        joint,
        labels,
        classes,
        val_features=none,
        val_labels=np.empty(0, dtype=np.int64),
        blocks=[part.shape[1] for part in features],
        config=replace(config, strengths=(strength,)),
    )
    ends = np.cumsum([part.shape[1] for part in features])[:-1]
    bias = fit.bias.astype(np.float32)
    return [((len(features) * w).astype(np.float32), bias) for w in np.split(fit.weight, ends, axis=1)]


def block_probabilities(blocks: Blocks, features: Sequence[Floats32], *, views: int) -> NDArray[np.float64]:
    """What members with these classifiers predict, (m, n, k): features (n * views, f_j) each, averaged over views."""
    found = []
    for (weight, bias), part in zip(blocks, features, strict=True):
        logits = part.astype(np.float64) @ weight.T.astype(np.float64) + bias
        found.append(metrics.softmax(logits).reshape(-1, views, len(bias)).mean(axis=1))
    return np.stack(found)

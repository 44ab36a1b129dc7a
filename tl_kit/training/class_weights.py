"""Classes of uneven size: weights under which each counts the same, and the loss that takes them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

__all__ = ["class_weights", "image_weights", "total_weight", "weighted_cross_entropy"]


def class_weights(labels: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """n / (k n_c) for each of k classes with n_c >= 1 of the n ``labels`` (King & Zeng 2001): (k,), all 1 if even.

    Raises ValueError for a class without images.
    """
    from sklearn.utils.class_weight import compute_class_weight

    present = np.unique(labels)
    if len(present) != classes:
        raise ValueError(f"want images of all {classes} classes, got {len(present)}")
    weights: NDArray[np.float64] = compute_class_weight("balanced", classes=present, y=labels)
    return weights


def image_weights(labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Each image's class weight (n,), over the classes that occur; their sum is n."""
    from sklearn.utils.class_weight import compute_sample_weight

    weights: NDArray[np.float64] = compute_sample_weight("balanced", labels)
    return weights


def total_weight(labels: Tensor, *, weights: Tensor) -> float:
    """Σ_i w_i, by which ``weighted_cross_entropy`` divides; labels are indices (n,) or probabilities (n, k)."""
    shares = labels if labels.is_floating_point() else functional.one_hot(labels, len(weights)).to(weights.dtype)
    return float((shares * weights).sum())


def weighted_cross_entropy(logits: Tensor, labels: Tensor, *, weights: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Σ_i w_i l_i / Σ_i w_i: the cross-entropies l of a batch, each weighted by its label's class; ``weights`` (k,).

    logits (n, k); labels are class indices (n,), or probabilities (n, k) where images are mixed: the loss of a mixture
    is that mixture of its labels' weighted losses. Without smoothing, indices give ``torch``'s own weighted mean. A
    smoothed label (Szegedy et al. 2016) keeps the weight of its class: torch weights each class's share of the label
    by itself, so that every image would be pulled towards the rare classes.
    """
    shares = labels if labels.is_floating_point() else functional.one_hot(labels, len(weights)).to(logits.dtype)
    weighted = shares * weights
    total = weighted.sum(dim=1, keepdim=True)
    targets = (1 - label_smoothing) * weighted + label_smoothing / len(weights) * total
    return -(targets * functional.log_softmax(logits, dim=1)).sum() / total.sum()

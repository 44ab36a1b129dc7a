"""Cross-entropy with class weights."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

__all__ = ["total_weight", "weighted_cross_entropy"]


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

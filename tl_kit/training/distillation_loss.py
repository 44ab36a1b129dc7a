"""Knowledge distillation: a loss on a teacher's probabilities beside that on the labels."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

__all__ = ["distillation_loss"]


def distillation_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    on_labels: Callable[[Tensor, Tensor], Tensor],
    temperature: float,
    weight: float,
) -> Tensor:
    """(1 - w) on_labels(z, y) + w T² KL(q || softmax(z / T)), the mean over a batch (Hinton, Vinyals & Dean 2015).

    ``logits`` z (n, k); ``targets`` (n, 2, k) are the labels y as probabilities and the teacher's q, which is softened
    by the same T. With respect to z, the second term's gradient is w T (softmax(z / T) - q) / n: T² keeps it as large
    as that of the first, whatever T. At w = 1 and T = 1 this is model compression (Bucila, Caruana & Niculescu-Mizil
    2006) by cross-entropy.
    """
    labels, soft = targets.unbind(dim=1)
    divergence = functional.kl_div(functional.log_softmax(logits / temperature, dim=1), soft, reduction="batchmean")
    return (1 - weight) * on_labels(logits, labels) + weight * temperature**2 * divergence

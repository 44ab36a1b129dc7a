"""The loss with class weights against torch, against repeated images and by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tl_kit.training.weighted_loss import weighted_cross_entropy

CLASSES = 4
generator = torch.Generator().manual_seed(0)
LOGITS = torch.randn(12, CLASSES, generator=generator, dtype=torch.float64)
LABELS = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 3])
WHOLE = torch.tensor([1.0, 2.0, 3.0, 6.0], dtype=torch.float64)
SMOOTHING = pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])


def test_class_indices_give_torchs_weighted_mean() -> None:
    found = weighted_cross_entropy(LOGITS, LABELS, weights=WHOLE)
    torch.testing.assert_close(found, functional.cross_entropy(LOGITS, LABELS, weight=WHOLE))


@SMOOTHING
def test_weights_of_one_give_the_unweighted_loss(smoothing: float) -> None:
    mixed = 0.3 * functional.one_hot(LABELS) + 0.7 * functional.one_hot(LABELS.roll(1))
    for labels in (LABELS, mixed.double()):
        found = weighted_cross_entropy(
            LOGITS, labels, weights=torch.ones(CLASSES, dtype=torch.float64), label_smoothing=smoothing
        )
        torch.testing.assert_close(found, functional.cross_entropy(LOGITS, labels, label_smoothing=smoothing))


@SMOOTHING
def test_an_image_of_whole_weight_counts_as_so_many_images(smoothing: float) -> None:
    times = WHOLE[LABELS].long()
    repeated = functional.cross_entropy(
        LOGITS.repeat_interleave(times, dim=0), LABELS.repeat_interleave(times), label_smoothing=smoothing
    )
    found = weighted_cross_entropy(LOGITS, LABELS, weights=WHOLE, label_smoothing=smoothing)
    torch.testing.assert_close(found, repeated)


@SMOOTHING
def test_the_loss_of_a_mixture_is_the_mixture_of_the_losses(smoothing: float) -> None:
    share, other = 0.3, LABELS.roll(1)
    mixed = share * functional.one_hot(LABELS) + (1 - share) * functional.one_hot(other)
    found = weighted_cross_entropy(LOGITS, mixed.double(), weights=WHOLE, label_smoothing=smoothing)

    def sums(labels: Tensor) -> tuple[Tensor, Tensor]:
        losses = functional.cross_entropy(LOGITS, labels, reduction="none", label_smoothing=smoothing)
        return (WHOLE[labels] * losses).sum(), WHOLE[labels].sum()

    (loss, weight), (other_loss, other_weight) = sums(LABELS), sums(other)
    expected = (share * loss + (1 - share) * other_loss) / (share * weight + (1 - share) * other_weight)
    torch.testing.assert_close(found, expected)
    certain = weighted_cross_entropy(
        LOGITS, functional.one_hot(LABELS).double(), weights=WHOLE, label_smoothing=smoothing
    )
    whole = weighted_cross_entropy(LOGITS, LABELS, weights=WHOLE, label_smoothing=smoothing)
    torch.testing.assert_close(certain, whole)


def test_a_smoothed_label_is_not_pulled_towards_the_heavy_classes() -> None:
    """One image's best prediction is its smoothed label, whatever the weights; torch's own weighting moves it."""
    logits = torch.zeros(1, CLASSES, dtype=torch.float64, requires_grad=True)
    smoothed = torch.full((1, CLASSES), 0.2 / CLASSES, dtype=torch.float64)
    smoothed[0, 0] += 0.8
    with torch.no_grad():
        logits.copy_(smoothed.log())
    weighted_cross_entropy(logits, torch.tensor([0]), weights=WHOLE, label_smoothing=0.2).backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.zeros_like(logits))

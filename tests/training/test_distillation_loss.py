"""The distillation loss against its own equations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tl_kit.training.distillation_loss import distillation_loss

ROWS, CLASSES, FEATURES = 6, 4, 5


def problem(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features, a linear layer's weights, labels, and a teacher's logits."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(ROWS, FEATURES, generator=generator, dtype=torch.float64)
    weight = torch.randn(CLASSES, FEATURES, generator=generator, dtype=torch.float64)
    labels = torch.randint(CLASSES, (ROWS,), generator=generator)
    return features, weight, labels, torch.randn(ROWS, CLASSES, generator=generator, dtype=torch.float64)


def targets_of(labels: Tensor, soft: Tensor) -> Tensor:
    return torch.stack([functional.one_hot(labels, CLASSES).to(soft.dtype), soft], dim=1)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_value_and_gradient_of_a_tiny_net_are_those_of_the_equations(temperature: float, weight: float) -> None:
    features, layer, labels, teacher = problem()
    q = (teacher / temperature).softmax(1)
    layer.requires_grad_()
    options = {"on_labels": functional.cross_entropy, "temperature": temperature, "weight": weight}
    loss = distillation_loss(features @ layer.T, targets_of(labels, q), **options)
    loss.backward()
    z = (features @ layer.detach().T).numpy()
    y, soft = np.eye(CLASSES)[labels], q.numpy()
    p, tempered = (np.exp(v) / np.exp(v).sum(1, keepdims=True) for v in (z, z / temperature))
    hard = -np.log((p * y).sum(1)).mean()
    divergence = (soft * np.log(soft / tempered)).sum(1).mean()
    assert loss.item() == pytest.approx((1 - weight) * hard + weight * temperature**2 * divergence, abs=1e-12)
    by_logit = ((1 - weight) * (p - y) + weight * temperature * (tempered - soft)) / ROWS
    np.testing.assert_allclose(layer.grad.numpy(), by_logit.T @ features.numpy(), rtol=0, atol=1e-12)


def test_a_student_that_says_what_its_teacher_says_has_no_loss_and_no_gradient() -> None:
    _, _, labels, teacher = problem()
    logits = (teacher + 5).requires_grad_()
    targets = targets_of(labels, (teacher / 2).softmax(1))
    loss = distillation_loss(logits, targets, on_labels=functional.cross_entropy, temperature=2.0, weight=1.0)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert logits.grad.abs().max() < 1e-12


def test_at_a_high_temperature_logits_are_matched() -> None:
    """(z - v) / (n k) for centred logits: equation 4 of Hinton et al. 2015."""
    _, _, labels, teacher = problem()
    z = torch.randn(ROWS, CLASSES, generator=torch.Generator().manual_seed(9), dtype=torch.float64).requires_grad_()
    temperature = 1e4
    targets = targets_of(labels, (teacher / temperature).softmax(1))
    options = {"on_labels": functional.cross_entropy, "temperature": temperature, "weight": 1.0}
    distillation_loss(z, targets, **options).backward()
    difference = (z - teacher).detach()
    expected = (difference - difference.mean(1, keepdim=True)) / (ROWS * CLASSES)
    torch.testing.assert_close(z.grad, expected, rtol=1e-3, atol=1e-5)


def test_a_teacher_that_excludes_a_class_is_no_nan() -> None:
    targets = torch.zeros(1, 2, CLASSES)
    targets[:, :, 0] = 1
    logits = torch.tensor([[0.0, 1000.0, 0.0, 0.0]], requires_grad=True)
    loss = distillation_loss(logits, targets, on_labels=functional.cross_entropy, temperature=1.0, weight=1.0)
    loss.backward()
    assert loss.item() == pytest.approx(1000)
    assert torch.isfinite(logits.grad).all()

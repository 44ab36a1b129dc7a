"""Mixup and cutmix against their equations; labels get the same shares as pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tl_kit.images.mixing import mix

LABELS = torch.tensor([0, 1, 2, 3, 1])
PARTNERS = LABELS.roll(1)


def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.rand(5, 3, 16, 16, generator=generator)


def share_of(targets: torch.Tensor) -> float:
    """l, from the probability of the first image's own class."""
    return float(targets[0, LABELS[0]])


@pytest.mark.parametrize("seed", range(5))
def test_mixup_is_a_convex_combination_of_neighbours(seed: int) -> None:
    x = images()
    mixed, targets = mix(x, LABELS, 4, mixup=0.8, cutmix=0.0, seed=(seed,))
    share = share_of(targets)
    assert 0 < share < 1
    torch.testing.assert_close(mixed, share * x + (1 - share) * x.roll(1, 0))
    one_hot = torch.eye(4)
    torch.testing.assert_close(targets, share * one_hot[LABELS] + (1 - share) * one_hot[PARTNERS])


@pytest.mark.parametrize("seed", range(5))
def test_cutmix_pastes_one_rectangle_and_counts_its_area(seed: int) -> None:
    x = images()
    mixed, targets = mix(x, LABELS, 4, mixup=0.0, cutmix=1.0, seed=(seed,))
    pasted = (mixed != x).any(1)
    assert (pasted == pasted[0]).all(), "the same rectangle in each image"
    torch.testing.assert_close(mixed, torch.where(pasted.unsqueeze(1), x.roll(1, 0), x))
    assert share_of(targets) == pytest.approx(1 - float(pasted[0].float().mean()), abs=1e-6)
    rows, columns = pasted[0].any(1).nonzero(), pasted[0].any(0).nonzero()
    if len(rows):
        area = (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
        assert pasted[0].sum() == area


def test_shares_follow_the_beta_distribution() -> None:
    drawn = [share_of(mix(images(), LABELS, 4, mixup=0.2, cutmix=0.0, seed=(s,))[1]) for s in range(800)]
    assert np.mean(drawn) == pytest.approx(0.5, abs=0.05)
    assert np.var(drawn) == pytest.approx(1 / (4 * (2 * 0.2 + 1)), rel=0.1)  # of Beta(a, a)


def test_with_both_each_batch_takes_one_of_them() -> None:
    x = images()
    blended = []
    for seed in range(60):
        mixed, targets = mix(x, LABELS, 4, mixup=1.0, cutmix=1.0, seed=(seed,))
        share = share_of(targets)
        blended.append(torch.allclose(mixed, share * x + (1 - share) * x.roll(1, 0)))
    assert 15 < sum(blended) < 45


def test_the_seed_decides_and_the_global_state_is_left_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    first = mix(images(), LABELS, 4, mixup=0.8, cutmix=0.8, seed=(1, 2))
    assert torch.equal(torch.rand(2), expected)
    torch.manual_seed(99)
    again = mix(images(), LABELS, 4, mixup=0.8, cutmix=0.8, seed=(1, 2))
    other = mix(images(), LABELS, 4, mixup=0.8, cutmix=0.8, seed=(1, 3))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])

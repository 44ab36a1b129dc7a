"""Mixup and cutmix: pairs of images of a batch put together, and their labels in the same shares."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.transforms import v2

from tl_kit.images.augmentation import seeded_draws
from tl_kit.machine.random_state import own_random_state

__all__ = ["mix"]


def mix(
    images: Tensor, labels: Tensor, classes: int, *, mixup: float, cutmix: float, seed: tuple[object, ...]
) -> tuple[Tensor, Tensor]:
    """A batch (n, 3, h, w) with labels (n,) -> a mixed batch and probabilities (n, classes).

    Mixup (Zhang et al. 2018): ``l x + (1 - l) x'`` with l drawn from Beta(mixup, mixup). Cutmix (Yun et al. 2019): a
    rectangle of x', whose area's share goes to its label. Where both have an alpha above 0, each batch takes one of
    them, with equal chances. The partner is the image before in the batch. All draws come from ``seed``; the global
    random state is left as it was.
    """
    ways: list[v2.Transform] = []
    if mixup > 0:
        ways.append(v2.MixUp(alpha=mixup, num_classes=classes))
    if cutmix > 0:
        ways.append(v2.CutMix(alpha=cutmix, num_classes=classes))
    if not ways:
        raise ValueError("either mixup or cutmix must be above 0")
    with own_random_state():
        seeded_draws("mix", *seed)
        way = ways[int(torch.randint(len(ways), ()))]
        mixed: tuple[Tensor, Tensor] = way(images, labels)
    return mixed

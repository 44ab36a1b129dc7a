"""Runs under the guard on small images, and what it compares, computed by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import tl_kit
from tests.helpers import quick
from tl_kit import metrics
from tl_kit.config import HeadConfig
from tl_kit.data.manifest import labels_of
from tl_kit.data.pixel_store import PixelStore
from tl_kit.data.scan import scan
from tl_kit.images.transforms import Preprocessing, normalize
from tl_kit.storage.checkpoint import load_checkpoint

ORDER = ("trained", "average 0.75", "average 0.5", "average 0.25", "head")
ONCE = HeadConfig(refit=False)


def run_on(data: Path, out: Path, **options: Any) -> tl_kit.FinetuneResult:
    return quick(data, out, **{"weights": str(data.parent / "pretrained"), "epochs": 3, **options})


def images_of(data: Path, split: str, preprocessing: Preprocessing) -> tuple[Tensor, np.ndarray]:
    """The normalised images of a split, as evaluation sees them, and their labels."""
    samples = scan(data).split(split)
    store = PixelStore(preprocessing)
    store.fill(samples, crop=True)
    return normalize(torch.stack(store.get(samples, crop=True)), preprocessing), labels_of(samples)


def scores(folder: Path, state: dict[str, Tensor], data: Path) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and labels of the validation images, by the checkpoint's network under other weights."""
    found = load_checkpoint(folder)
    found.model.load_state_dict(state)
    images, labels = images_of(data, "val", found.preprocessing)
    with torch.inference_mode():
        return metrics.softmax(found.model(images).double().numpy()), labels


def by_hand(head: dict[str, Tensor], trained: dict[str, Tensor], alpha: float) -> dict[str, Tensor]:
    return {
        name: ((1 - alpha) * head[name].double() + alpha * tensor.double()).to(tensor.dtype)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in trained.items()
    }

"""Checkpoints of random weights, photos, and the code of model cards, for tests of what other programs open."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from tl_kit.images.transforms import Preprocessing
from tl_kit.storage.checkpoint import save_config, save_meta, save_weights
from tl_kit.zoo.build_model import build_model, set_crop_mode
from tl_kit.zoo.heads import classifier_names

CLASSES = ("Äpfel", "日本 🍎", 'a "b" | <c>')


def write_checkpoint(
    folder: Path,
    name: str = "test_resnet",
    classes: Sequence[str] = CLASSES,
    *,
    img_size: int | None = 32,
    crop_mode: str | None = None,
    seed: int = 0,
    **record: object,
) -> Path:
    """A checkpoint as a run writes it, of a network whose every class is the answer to some picture."""
    model, _ = build_model(name, len(classes), weights="none", img_size=img_size, seed=seed)
    shake(model, seed)
    if crop_mode is not None:
        set_crop_mode(model, crop_mode)
    folder.mkdir(parents=True)
    save_config(folder, model, classes, Preprocessing.from_model(model))
    save_weights(folder, model)
    save_meta(folder, classes, **record)
    return folder


@torch.no_grad()
def shake(model: nn.Module, seed: int) -> None:
    """Noise on every tensor, so that none has the value at which it begins; the classifier tells pictures apart."""
    generator = torch.Generator().manual_seed(seed)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            noise = torch.rand(tensor.shape, generator=generator) - 0.5
            tensor.mul_(1 + 0.2 * noise).add_(0.02 * noise)
    for name in classifier_names(model):
        for parameter in model.get_submodule(name).parameters():
            parameter.mul_(10)


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """Coloured stripes and noise: no two places are alike."""
    rng = np.random.default_rng(seed)
    columns, rows = np.meshgrid(np.linspace(0, 9, width), np.linspace(0, 5, height))
    waves = np.stack([np.sin(columns * (1 + seed)), np.cos(rows + columns), np.sin(rows * 2)], axis=-1)
    pixels = 127 + 90 * waves + rng.normal(0, 20, waves.shape)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def run_blocks(text: str, **places: str) -> list[Any]:
    """Run the card's blocks of Python, with these texts in the place of its words; gives what each printed."""
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 3
    found: list[Any] = []
    for block in blocks:
        for word, place in places.items():
            block = block.replace(word, place)
        printed: list[Any] = []
        exec(block, {"print": lambda *values, to=printed: to.append(values)})
        found.append(printed)
    return found

"""A made-up photo, and what a model's card says of its input."""

from __future__ import annotations

from copy import copy
from functools import cache

import numpy as np
import timm
import torch
from PIL import Image

from tl_kit.images.transforms import Preprocessing


def photo(width: int, height: int, *, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


@cache
def _network(name: str) -> torch.nn.Module:
    with torch.device("meta"):
        found: torch.nn.Module = timm.create_model(name)
    return found


def preprocessing(name: str = "resnet18", **changes: object) -> Preprocessing:
    model = copy(_network(name))
    model.pretrained_cfg = {**model.pretrained_cfg, **changes}
    return Preprocessing.from_model(model)

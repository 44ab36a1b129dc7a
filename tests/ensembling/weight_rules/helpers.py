"""Ensembles by a rule that makes new weights, checkpoints whose average is known, images as evaluation sees them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from PIL import Image
from torch import Tensor

import tl_kit
from tl_kit import EnsembleConfig, EnsembleResult, RuntimeConfig
from tl_kit.config import RuleFitConfig
from tl_kit.data.scan import scan
from tl_kit.images.transforms import normalize
from tl_kit.storage.checkpoint import WEIGHTS, load_checkpoint

FIT = RuleFitConfig(folds=3, stack_c=(0.1,))
FP32 = RuntimeConfig(precision="fp32")


def combine(paths: list[Path], out: Path, rule: str, **options: Any) -> EnsembleResult:
    settings: dict[str, Any] = {"bootstrap": 100, "fit": FIT, "runtime": FP32} | options
    return tl_kit.ensemble(EnsembleConfig(checkpoints=tuple(paths), out=out, rule=rule, **settings))


def changed(base: Path, out: Path, change: Callable[[str, Tensor], Tensor]) -> Path:
    """A copy of a checkpoint with other tensors."""
    folder = Path(shutil.copytree(base, out))
    tensors = {name: change(name, t).contiguous() for name, t in safetensors.torch.load_file(folder / WEIGHTS).items()}
    safetensors.torch.save_file(tensors, folder / WEIGHTS)
    return folder


def around(base: Path, out: Path, *, spread: float, only: str = "") -> list[Path]:
    """Two checkpoints whose average is ``base``, each so far from it."""

    def moved(sign: int) -> Callable[[str, Tensor], Tensor]:
        generator = torch.Generator().manual_seed(0)

        def move(name: str, tensor: Tensor) -> Tensor:
            if not tensor.is_floating_point() or "running" in name or not name.startswith(only):
                return tensor
            return tensor + sign * spread * tensor.std() * torch.randn(tensor.shape, generator=generator)

        return move

    return [changed(base, out / name, moved(sign)) for name, sign in (("plus", 1), ("minus", -1))]


def only_member(result: EnsembleResult) -> Path:
    members = list((Path(result.checkpoint) / "members").iterdir())
    assert len(members) == 1
    return members[0]


def images_of(data: Path, folder: Path, split: str) -> tuple[Tensor, list[Path]]:
    """Normalised images of a split, as evaluation sees them, and their files."""
    paths = [sample.path for sample in scan(data, tl_kit.DataConfig()).split(split)]
    preprocessing = load_checkpoint(folder).preprocessing
    pixels = torch.stack([preprocessing.evaluate(Image.open(path).convert("RGB")) for path in paths])
    return normalize(pixels, preprocessing), paths

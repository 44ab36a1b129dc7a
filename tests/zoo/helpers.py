"""Models with random weights, and where files of theirs are put."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import safetensors.torch
import timm
import torch
from torch import nn

RESNET_HEAD = ("fc.weight", "fc.bias")


def trained(name: str, num_classes: int, seed: int = 7, **arguments: Any) -> nn.Module:
    """A model whose every float tensor is random, as after training: no BatchNorm buffer is at its initial value."""
    model = timm.create_model(name, num_classes=num_classes, **arguments)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) * 0.1 + 0.01)
    return model


def save(state: dict[str, torch.Tensor], path: Path) -> Path:
    if path.suffix == ".safetensors":
        safetensors.torch.save_file({k: v.contiguous() for k, v in state.items()}, path)
    else:
        torch.save(state, path)
    return path


def in_cache(cache: Path, repository: str, filename: str, content: bytes) -> None:
    """Lay a file where the hub client would have put it."""
    root = cache / f"models--{repository.replace('/', '--')}"
    snapshot = root / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True, exist_ok=True)
    (root / "refs").mkdir(exist_ok=True)
    (root / "refs" / "main").write_text("0" * 40)
    (snapshot / filename).write_bytes(content)

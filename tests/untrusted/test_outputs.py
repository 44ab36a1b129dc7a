"""Weights that are finite and make outputs that are not: refused by name, not an internal error."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
import torch

from tests.untrusted.refusals import every_way_in, refused


def test_outputs_that_are_not_finite_are_refused(checkpoint: Path, images: Path, tmp_path: Path) -> None:
    """Each weight is a number, and their products are too large for one."""
    path = checkpoint / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in safetensors.torch.load_file(path).items()}
    for name, tensor in tensors.items():
        if name.endswith("bn1.weight") or name == "fc.weight":
            tensor.fill_(torch.finfo(torch.float32).max)
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})
    for command in every_way_in(checkpoint, images)[:2]:
        line = refused(tmp_path, *command)
        assert "outputs are not finite" in line
        assert str(checkpoint) in line

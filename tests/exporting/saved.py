"""Checkpoints and ensembles of tiny networks, made in a second, for the tests of exported files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

import tl_kit
from tests.helpers import weights
from tl_kit import ExportConfig, ExportResult
from tl_kit.combining.fitted_rule import FittedRule
from tl_kit.config import CropConfig
from tl_kit.storage.checkpoint import WEIGHTS
from tl_kit.storage.ensemble_folder import write_ensemble

HEAD = ("fc.weight", "fc.bias")
MEAN = FittedRule()


def variant(checkpoint: Path, out: Path, *, seed: int, names: tuple[str, ...] = HEAD, **card: Any) -> Path:
    """A copy with random numbers in some tensors, and with other entries in its card."""
    shutil.copytree(checkpoint, out)
    tensors, generator = weights(out), torch.Generator().manual_seed(seed)
    for name in names:
        tensors[name] = torch.randn(tensors[name].shape, generator=generator)
    save_file(tensors, out / WEIGHTS, metadata={"format": "pt"})
    if card:
        content = json.loads((out / "config.json").read_text())
        content["pretrained_cfg"].update(card)
        (out / "config.json").write_text(json.dumps(content))
    return out


def turned(checkpoint: Path, out: Path) -> Path:
    """A copy whose classes stand in another order."""
    shutil.copytree(checkpoint, out)
    meta, card = (json.loads((out / name).read_text()) for name in ("tlkit.json", "config.json"))
    order = [2, 0, 1]
    tensors = weights(out)
    for name in HEAD:
        tensors[name] = tensors[name][order].contiguous()
    meta["classes"] = card["label_names"] = [meta["classes"][index] for index in order]
    for name, content in (("tlkit.json", meta), ("config.json", card)):
        (out / name).write_text(json.dumps(content))
    save_file(tensors, out / WEIGHTS, metadata={"format": "pt"})
    return out


def together(
    folder: Path, *members: Path, rule: FittedRule = MEAN, crops: CropConfig = CropConfig(), passes: int = 0
) -> Path:
    """An ensemble of these members, with the class order of the first."""
    folder.mkdir()
    classes = json.loads((members[0] / "tlkit.json").read_text())["classes"]
    write_ensemble(folder, members, classes=classes, rule=rule, crops=crops, mc_dropout=passes)
    return folder


def write(checkpoint: Path, out: Path, **options: Any) -> ExportResult:
    """Export into a file."""
    return tl_kit.export(ExportConfig(checkpoint=checkpoint, out=out, **options))

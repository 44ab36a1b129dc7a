"""Pretraining of small networks of other families than the starter's: a ViT, a ConvNeXt and a ResNet at 64 px.

They show whether a rule keeps or destroys what a network of that family has learned, not how good a large one is: each
has under 3 million parameters and sees 38,000 images of 200 classes eight times. Resolution grows from 32 to 64 px.
Each folder is one that timm opens (``local-dir:FOLDER``), with ``recipe.json`` beside the weights.

python benchmarks/small_backbones.py prepare --images FOLDER_OF_CLASS_FOLDERS --out OUT
python benchmarks/small_backbones.py train vit --out OUT
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torch.nn.functional as functional
from PIL import Image
from timm.models import save_for_hf
from torch import Tensor, nn

SIZE, BATCH, HELD_OUT = 64, 128, 20
"""``HELD_OUT`` in one: every 20th image of the list measures, and does not train."""
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


@dataclass(frozen=True)
class Recipe:
    """One network: timm's name and arguments, the highest rate, and epochs at each resolution."""

    name: str
    rate: float
    arguments: dict[str, Any]
    epochs: dict[int, int]
    training: dict[str, Any] = field(default_factory=dict)


RECIPES = {
    "vit": Recipe(
        "vit_tiny_patch16_224",
        1e-3,
        {"img_size": SIZE, "patch_size": 8, "embed_dim": 144, "depth": 6, "num_heads": 3},
        {32: 6, 48: 1, 64: 1},
        {"dynamic_img_size": True},
    ),
    "convnext": Recipe(
        "convnext_atto",
        2e-3,
        {"dims": [32, 64, 128, 256], "depths": [2, 2, 4, 2]},
        {32: 6, 48: 1, 64: 1},
    ),
    "resnet": Recipe(
        "resnet10t",
        2e-3,
        {"channels": [32, 64, 128, 256], "stem_width": 16},
        {32: 6, 48: 1, 64: 1},
    ),
}


def prepare(images: Path, out: Path) -> None:
    """Decode all images once, in an order drawn with seed 0."""
    names = sorted(folder.name for folder in images.iterdir() if folder.is_dir())
    files = [(path, label) for label, name in enumerate(names) for path in sorted((images / name).iterdir())]
    order = np.random.default_rng(0).permutation(len(files))
    pixels = np.empty((len(files), SIZE, SIZE, 3), np.uint8)
    for row, index in enumerate(order):
        with Image.open(files[index][0]) as image:
            pixels[row] = np.asarray(image.convert("RGB").resize((SIZE, SIZE)))
    labels = np.array([files[index][1] for index in order], np.int64)
    out.mkdir(parents=True, exist_ok=True)
    np.save(out / "labels.npy", labels)
    np.save(out / "pixels.npy", pixels)


def as_input(batch: Tensor, mean: Tensor = MEAN, std: Tensor = STD) -> Tensor:
    """(N, H, W, 3) bytes -> (N, 3, H, W) normalised."""
    return ((batch.float() / 255 - mean) / std).permute(0, 3, 1, 2).contiguous()


def cropped(batch: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Each image from a random square of 60 to 100 % of its area, half of them mirrored, at ``size`` px."""
    count = len(batch)
    side = (0.6 + 0.4 * torch.rand(count, generator=generator)).sqrt()
    flip = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
    shift = (2 * torch.rand(count, 2, generator=generator) - 1) * (1 - side)[:, None]
    matrix = torch.zeros(count, 2, 3)
    matrix[:, 0, 0], matrix[:, 1, 1], matrix[:, :, 2] = side * flip, side, shift
    grid = functional.affine_grid(matrix, [count, 3, SIZE, SIZE], align_corners=False)
    whole = functional.grid_sample(batch, grid, padding_mode="reflection", align_corners=False)
    return whole if size == SIZE else functional.interpolate(whole, size=size, mode="area")


def groups(model: nn.Module) -> list[dict[str, Any]]:
    """Decay for matrices and convolutions only."""
    exempt = model.no_weight_decay() if hasattr(model, "no_weight_decay") else set()
    plain = [p for name, p in model.named_parameters() if p.ndim <= 1 or name in exempt]
    decayed = [p for name, p in model.named_parameters() if p.ndim > 1 and name not in exempt]
    return [{"params": plain, "weight_decay": 0.0}, {"params": decayed, "weight_decay": 0.05}]


def train(which: str, out: Path) -> None:
    """Train one network, writing it after each epoch; goes on from the last epoch that was written."""
    recipe = RECIPES[which]
    pixels = np.load(out / "pixels.npy", mmap_mode="r")
    labels = torch.from_numpy(np.load(out / "labels.npy"))
    held = np.arange(len(labels)) % HELD_OUT == 0
    training, held_out = np.flatnonzero(~held), np.flatnonzero(held)
    torch.manual_seed(0)
    model = timm.create_model(recipe.name, num_classes=int(labels.max()) + 1, **recipe.arguments, **recipe.training)
    optimizer = torch.optim.AdamW(groups(model), lr=recipe.rate)
    sizes = [size for size, epochs in recipe.epochs.items() for _ in range(epochs)]
    steps = len(training) // BATCH
    total, warm = steps * len(sizes), steps
    folder, begun = out / which, 0
    state = folder / "state.pt"
    if state.is_file():
        kept = torch.load(state, weights_only=True)
        model.load_state_dict(kept["model"])
        optimizer.load_state_dict(kept["optimizer"])
        begun = kept["epoch"]
    for epoch in range(begun, len(sizes)):
        generator = torch.Generator().manual_seed(epoch)
        order = training[torch.randperm(len(training), generator=generator).numpy()]
        model.train()
        started, cpu, losses = time.perf_counter(), time.process_time(), 0.0
        for step in range(steps):
            done = epoch * steps + step
            share = (done + 1) / warm if done < warm else 0.5 + 0.5 * math.cos(math.pi * (done - warm) / (total - warm))
            for group in optimizer.param_groups:
                group["lr"] = recipe.rate * share
            rows = np.sort(order[step * BATCH : (step + 1) * BATCH])
            images = cropped(as_input(torch.from_numpy(pixels[rows])), sizes[epoch], generator)
            loss = functional.cross_entropy(model(images), labels[rows], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            losses += float(loss.detach())
        last = epoch + 1 == len(sizes)
        accuracy = measure(model, pixels, labels, held_out if last else held_out[::4])
        note = {"epoch": epoch + 1, "of": len(sizes), "px": sizes[epoch], "loss": round(losses / steps, 3)}
        note |= {"accuracy": round(accuracy, 4), "seconds": round(time.perf_counter() - started)}
        note |= {"cpu": round(time.process_time() - cpu)}
        print(json.dumps(note), flush=True)
        write(folder, model, recipe, note, int(labels.max()) + 1)
        saved = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch + 1}
        torch.save(saved, state.with_suffix(".new"))
        state.with_suffix(".new").replace(state)


@torch.inference_mode()
def measure(model: nn.Module, pixels: np.ndarray, labels: Tensor, rows: np.ndarray) -> float:
    """Accuracy at 64 px."""
    model.eval()
    right = 0
    for start in range(0, len(rows), BATCH):
        part = rows[start : start + BATCH]
        right += int((model(as_input(torch.from_numpy(pixels[part]))).argmax(1) == labels[part]).sum())
    return right / len(rows)


def write(folder: Path, model: nn.Module, recipe: Recipe, note: dict[str, Any], classes: int) -> None:
    """A folder that timm opens, with the recipe and the weights' digest beside it."""
    plain = timm.create_model(recipe.name, num_classes=classes, **recipe.arguments)
    plain.load_state_dict(model.state_dict())
    card = {"input_size": (3, SIZE, SIZE), "mean": MEAN.tolist(), "std": STD.tolist(), "crop_pct": 1.0}
    new = folder.with_name(folder.name + ".new")
    save_for_hf(plain, str(new), model_args=dict(recipe.arguments), safe_serialization=True, data_config=card)
    digest = hashlib.sha256((new / "model.safetensors").read_bytes()).hexdigest()
    told = {
        "architecture": recipe.name,
        "arguments": recipe.arguments,
        "parameters": sum(p.numel() for p in plain.parameters()),
        "rate": recipe.rate,
        "batch": BATCH,
        "epochs": recipe.epochs,
        "decay": 0.05,
        "optimizer": "AdamW, cosine, one epoch of warm-up, gradients clipped at 1",
        "last": note,
        "sha256": digest,
    }
    (new / "recipe.json").write_text(json.dumps(told, indent=1))
    folder.mkdir(parents=True, exist_ok=True)
    for path in new.iterdir():
        path.replace(folder / path.name)
    new.rmdir()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["prepare", "train"])
    parser.add_argument("network", nargs="?", choices=sorted(RECIPES))
    parser.add_argument("--images", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.what == "prepare":
        prepare(given.images, given.out)
    else:
        train(given.network, given.out)


if __name__ == "__main__":
    main()

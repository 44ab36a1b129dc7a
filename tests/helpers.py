"""Small images that a small network can tell apart, runs that take a second, and what tests ask of them."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from tl_kit import FinetuneConfig, FinetuneResult, finetune
from tl_kit.config import GuardConfig, LoopConfig, RuntimeConfig
from tl_kit.reporting import SILENT, Reporter, tell
from tl_kit.storage.checkpoint import WEIGHTS
from tl_kit.training import loop

MODEL = "test_resnet"
# Of images so plain the fitted head is hard to beat: a test of what training does keeps that, whatever it is worth.
UNGUARDED = GuardConfig(head_guard=False)
COLOURS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200), "grey": (120, 120, 120)}


# A run from pretrained weights compares two ways of such images into the square, which takes a quarter of its time,
# unless they are as good as square.
NEARLY_SQUARE = (42, 44)


class Listener:
    """A Reporter that keeps the messages."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)

    def start(self, stage: str, total: int) -> None: ...

    def advance(self, steps: int = 1, **figures: float) -> None: ...

    def epoch(self, row: object) -> None: ...


def write_images(
    root: Path,
    classes: tuple[str, ...] = ("red", "green", "blue"),
    *,
    images: int = 12,
    seed: int = 0,
    size: tuple[int, int] = (40, 48),
) -> Path:
    """Class folders of noisy PNGs of so many rows and columns, each class its colour."""
    rng = np.random.default_rng(seed)
    for name in classes:
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(images):
            noise = rng.normal(0, 40, (*size, 3))
            pixels = np.clip(np.array(COLOURS[name]) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{seed}-{number}.png")
    return root


def few_digits(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Of scikit-learn's digits the first ones alone, of all ten classes."""
    from sklearn import datasets

    digits = datasets.load_digits()
    digits.images, digits.target = digits.images[:count], digits.target[:count]
    monkeypatch.setattr(datasets, "load_digits", lambda: digits)


def quick_config(data: Path, out: Path, **options: Any) -> FinetuneConfig:
    """A run on a tiny network from random weights, in a precision that is the same on every machine."""
    settings: dict[str, Any] = {
        "runtime": RuntimeConfig(precision="fp32"),
        "model": MODEL,
        "weights": "none",
        "img_size": 32,
        "policy": "full",
        "epochs": 2,
        "batch_size": 8,
        "loop": LoopConfig(warmup_epochs=0.0),
    }
    settings |= options
    if settings["policy"] == "head" and settings["epochs"] is None and "loop" not in options:
        del settings["loop"]  # a loop's option would ask for a gradient method
    return FinetuneConfig(data=data, out=out, **settings)


def quick(data: Path, out: Path, *, reporter: Reporter = SILENT, **options: Any) -> FinetuneResult:
    """The run of :func:`quick_config`."""
    return finetune(quick_config(data, out, **options), reporter=reporter)


def weights(folder: Path | str) -> dict[str, Tensor]:
    """Those of a checkpoint."""
    with torch.device("cpu"):  # safetensors 0.5 follows the default device
        return load_file(Path(folder) / WEIGHTS)


def settings_of(folder: Path | str) -> dict[str, Any]:
    """Those that a run resolved, as its checkpoint has them."""
    found: dict[str, Any] = json.loads((Path(folder) / "tlkit.json").read_text())["settings"]
    return found


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Whether weights are equal, to the last bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def interrupt(monkeypatch: pytest.MonkeyPatch, *, at: int) -> None:
    """Ctrl-C in the training step of this number, counted from 0 over all runs to come."""
    original, calls = loop.train_step, itertools.count()

    def interrupting(*args: Any, **options: Any) -> float:
        if next(calls) == at:
            raise KeyboardInterrupt
        return original(*args, **options)

    monkeypatch.setattr(loop, "train_step", interrupting)


def told() -> list[str]:
    """What was noted in this thread for a reporter, since the last time."""
    listener = Listener()
    tell(listener)
    return listener.messages

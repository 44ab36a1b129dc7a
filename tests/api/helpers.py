"""Small images that a small network can tell apart, and runs that take a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tl_kit import FinetuneConfig, FinetuneResult, finetune
from tl_kit.config import LoopConfig, RuntimeConfig
from tl_kit.reporting import SILENT

MODEL = "test_resnet"
COLOURS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200), "grey": (120, 120, 120)}


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
    root: Path, classes: tuple[str, ...] = ("red", "green", "blue"), *, images: int = 12, seed: int = 0
) -> Path:
    """Class folders of noisy 40x48 PNGs, each class its colour."""
    rng = np.random.default_rng(seed)
    for name in classes:
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(images):
            noise = rng.normal(0, 40, (40, 48, 3))
            pixels = np.clip(np.array(COLOURS[name]) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{seed}-{number}.png")
    return root


def quick(data: Path, out: Path, **options: Any) -> FinetuneResult:
    """A run on a tiny network from random weights, in a precision that no measurement on a busy machine decides."""
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
    reporter = settings.pop("reporter", SILENT)
    return finetune(FinetuneConfig(data=data, out=out, **settings), reporter=reporter)

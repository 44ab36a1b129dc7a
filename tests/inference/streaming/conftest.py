"""Checkpoints of two networks, and images of which two cannot be read."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import pytest

import tl_kit
from tests.exporting.checkpoints import write_checkpoint
from tests.helpers import write_images
from tl_kit import Prediction, Predictor
from tl_kit.config import RuntimeConfig

FP32 = RuntimeConfig(precision="fp32")
SMALL = replace(FP32, batch_size=4)


@dataclass(frozen=True)
class Story:
    """Checkpoints of two networks, and 36 images, two of which cannot be read."""

    checkpoint: Path
    other: Path
    files: list[Path]
    expected: list[Prediction]


@pytest.fixture(scope="session")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    root = tmp_path_factory.mktemp("streams")
    data = write_images(root / "images")
    runs = [write_checkpoint(root / f"run-{seed}", seed=seed) for seed in (0, 1)]
    files = sorted(data.rglob("*.png"))
    files[5].write_bytes(files[5].read_bytes()[:200])
    files[22] = root / "missing.png"
    return Story(*runs, files, tl_kit.load(runs[0], runtime=SMALL).predict(files))


@pytest.fixture
def predictor(story: Story) -> Predictor:
    return tl_kit.load(story.checkpoint, runtime=SMALL)


def listed(files: list[Path], *, end: bytes = b"\n") -> io.BytesIO:
    return io.BytesIO(b"".join(os.fsencode(file) + end for file in files))


def flat(lists: list[list[Prediction]]) -> list[Prediction]:
    return list(chain.from_iterable(lists))

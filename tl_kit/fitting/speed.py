"""Speed of a checkpoint: milliseconds for one image, and seconds an image of many, measured here."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tl_kit.config import FitConfig, RuntimeConfig
from tl_kit.finetuning.result import Trained
from tl_kit.inference.predictor import load

__all__ = ["Speed", "measure_speed", "speed_of"]

_REPEATS = 5


@dataclass(frozen=True)
class Speed:
    """``latency``: milliseconds for one image alone; ``row``: seconds an image of many; decoding included in both."""

    latency: float
    row: float


def measure_speed(folder: Path, images: Sequence[Path], runtime: RuntimeConfig) -> Speed:
    """Predict one image several times, then all of them. The first prediction, which chooses kernels, is left out."""
    predictor = load(folder, runtime=runtime)
    predictor.predict(images[0])
    latency = median(_seconds(lambda: predictor.predict(images[0])) for _ in range(_REPEATS))
    return Speed(latency=1000 * latency, row=_seconds(lambda: predictor.predict(list(images))) / len(images))


def speed_of(folder: Path, trained: Trained, config: FitConfig) -> Speed:
    """Speed of a fit's run, by predicting validation images."""
    images = [sample.path for sample in trained.manifest.split("val")[: config.budget.timed]]
    return measure_speed(folder, images, config.runtime)


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started

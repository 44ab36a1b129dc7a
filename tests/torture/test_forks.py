"""Forks at any moment of a process in which threads predict, load and train: every child works, with equal numbers."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import tl_kit
from tests.forking import in_child
from tests.helpers import quick, same, weights, write_images
from tests.torture.table import record
from tl_kit import Prediction, Predictor
from tl_kit.config import RuntimeConfig

pytestmark = [
    pytest.mark.torture,
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]

FP32 = RuntimeConfig(precision="fp32")
TRIES = 25


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def folders(data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two checkpoints, and their ensemble."""
    root = tmp_path_factory.mktemp("runs")
    runs = [quick(data, root / str(seed), seed=seed, epochs=1).checkpoint for seed in range(2)]
    config = tl_kit.EnsembleConfig(checkpoints=tuple(map(Path, runs)), data=data, out=root / "both")
    tl_kit.ensemble(config)
    return [*map(Path, runs), root / "both"]


@contextmanager
def busy(*works: Callable[[], object]) -> Iterator[None]:
    """Threads that do their work over and over; what one raises is raised at the end."""
    stop, errors = threading.Event(), []

    def repeat(work: Callable[[], object]) -> None:
        try:
            while not stop.is_set():
                work()
        except Exception as error:  # noqa: BLE001 - raised below
            errors.append(error)

    threads = [threading.Thread(target=repeat, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert errors == []


def forked(fault: str, work: Callable[[], bool]) -> None:
    """Fork at random moments; a child is lost where it does not end in time, raises, or gives other numbers."""
    lost, moments = [], random.Random(0)
    for number in range(TRIES):
        time.sleep(moments.random() * 0.05)
        try:
            if not in_child(work):
                lost.append(f"fork {number}: other numbers")
        except AssertionError as error:
            lost.append(f"fork {number}: {str(error)[:300]}")
    record(fault, tries=TRIES, survived=TRIES - len(lost), lost=lost)


def loaded(folders: list[Path], files: list[Path]) -> list[tuple[Predictor, list[Prediction]]]:
    predictors = [tl_kit.load(folder, runtime=FP32) for folder in folders]
    return [(predictor, predictor.predict(files)) for predictor in predictors]


def test_while_threads_predict_and_load(data: Path, folders: list[Path]) -> None:
    torch.set_num_threads(2)
    files = sorted(data.rglob("*.png"))[::3]
    known = loaded(folders, files)

    def predict(place: int) -> Callable[[], object]:
        return lambda: known[place][0].predict(files)

    with busy(predict(0), predict(2), predict(2), lambda: tl_kit.load(folders[2], runtime=FP32)):
        forked(
            "a fork while threads predict and load",
            lambda: all(predictor.predict(files) == expected for predictor, expected in known),
        )


def test_while_a_thread_trains(data: Path, folders: list[Path], tmp_path: Path) -> None:
    files = sorted(data.rglob("*.png"))[:4]
    (predictor, expected) = loaded(folders[:1], files)[0]
    numbers = iter(range(10**6))
    whole = weights(quick(data, tmp_path / "whole", seed=7, epochs=1).checkpoint)

    def train(out: Path) -> bool:
        return same(weights(quick(data, out, seed=7, epochs=1).checkpoint), whole)

    with busy(lambda: train(tmp_path / f"parent-{next(numbers)}")):
        forked(
            "a fork while a thread trains",
            lambda: predictor.predict(files) == expected and train(tmp_path / f"child-{time.monotonic_ns()}"),
        )

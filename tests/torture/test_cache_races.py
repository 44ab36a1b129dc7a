"""The cache under runs that get in each other's way: nobody is ever given a row that is not the image's own."""

from __future__ import annotations

import multiprocessing
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.helpers import quick, same, weights, write_images
from tests.torture.table import record
from tl_kit.config import CacheConfig
from tl_kit.data.pixel_store import PixelStore
from tl_kit.storage.feature_store import FeatureStore, clear, evict

pytestmark = pytest.mark.torture

KEY, IMAGES, ROUNDS, PROCESSES = "0" * 32, 40, 150, 4
POLICIES = ("head", "last:1")
TRIES = 6


def row(number: int) -> Tensor:
    """That of an image, which any run computes alike."""
    return torch.full((256,), float(number))


def hammer(root: str, seed: int, answers: Any) -> None:
    """Fill, read, drop and clear at random; answers what was wrong."""
    rng, wrong = random.Random(seed), []
    for turn in range(ROUNDS):
        try:
            store = FeatureStore(Path(root), KEY, rng.choice((1, 20_000, 10**9)))
            names = [str(number) for number in rng.sample(range(IMAGES), 12)]
            lacking = [names[index] for index in store.missing(names)]
            store.add(lacking, iter([torch.stack([row(int(name)) for name in lacking])] if lacking else []))
            action = rng.random()
            if action < 0.2:
                clear(Path(root))
            elif action < 0.4:
                evict(Path(root), 10_000)
            found = store.get(names)
            other = [name for name, values in zip(names, found, strict=True) if not torch.equal(values, row(int(name)))]
            wrong += [f"turn {turn}: {other}"] if other else []
        except Exception as error:  # noqa: BLE001 - whatever it is, a run would have died of it
            wrong.append(f"turn {turn}: {error!r}")
    answers.put(wrong)


def test_runs_that_fill_drop_and_clear_one_cache(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    processes = [context.Process(target=hammer, args=(str(tmp_path), seed, answers)) for seed in range(PROCESSES)]
    for process in processes:
        process.start()
    wrong = [each for _ in processes for each in answers.get(timeout=300)]
    for process in processes:
        process.join(60)
    tries = PROCESSES * ROUNDS
    record("cache races: fill, drop, clear", tries=tries, survived=tries - len(wrong), lost=wrong)


@pytest.mark.parametrize("policy", POLICIES)
def test_files_replaced_at_random_moments_poison_nothing(
    policy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time another image is another one by the time it is decoded; later runs go by what is there then."""
    data, rng, lost = write_images(tmp_path / "images", images=10), random.Random(len(policy)), []
    shutil.copytree(data, tmp_path / "kept")
    files = sorted(data.rglob("*.png"))
    options: dict[str, Any] = {"policy": policy, "epochs": None if policy == "head" else 1}
    cache, fill = CacheConfig(directory=tmp_path / "cache"), PixelStore.fill
    alone = quick(data, tmp_path / "alone", cache=CacheConfig(size_gb=0), **options)
    for number in range(TRIES):
        file, moment, calls = rng.choice(files), rng.randrange(3), iter(range(1000))

        def late(
            store: PixelStore,
            samples: Any,
            *,
            file: Path = file,
            moment: int = moment,
            calls: Any = calls,
            **given: Any,
        ) -> Any:
            if next(calls) == moment:
                Image.new("RGB", (48, 40), (1, 250, 130)).save(file)
            return fill(store, samples, **given)

        with monkeypatch.context() as patch:
            patch.setattr(PixelStore, "fill", late)
            quick(data, tmp_path / f"torn-{number}", cache=cache, **options)
        shutil.copyfile(tmp_path / "kept" / file.relative_to(data), file)
        later = quick(data, tmp_path / f"later-{number}", cache=cache, **options)
        if (later.val, later.test) != (alone.val, alone.test) or not same(
            weights(later.checkpoint), weights(alone.checkpoint)
        ):
            lost.append(f"{file.name} at {moment}")
    record("cache races: a file replaced", tries=TRIES, survived=TRIES - len(lost), lost=lost)

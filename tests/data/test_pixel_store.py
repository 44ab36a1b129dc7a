"""The pixel store under an injected memory reading: it stops, shrinks and decodes again, to the same pixels."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers import told, write_images
from tl_kit.config import StoreConfig
from tl_kit.data import pixel_store as cache
from tl_kit.data.manifest import Sample
from tl_kit.data.pixel_store import PixelStore
from tl_kit.data.scan import scan
from tl_kit.images.transforms import Preprocessing

P = Preprocessing((3, 16, 16), "bicubic", 0.875, "center", (0.5,) * 3, (0.5,) * 3)
BYTES = 3 * 16 * 16


@pytest.fixture
def samples(tmp_path: Path) -> tuple[Sample, ...]:
    return scan(write_images(tmp_path / "images", images=8)).samples


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets what the machine says is free."""
    state = {"free": 10**9}
    monkeypatch.setattr(cache, "free_memory", lambda: state["free"])
    monkeypatch.setattr(cache, "release_memory", lambda: None)
    return lambda value: state.update(free=value)


CONFIG = StoreConfig(memory_share=0.5, reserve=1000, check_seconds=0.0)


def expected(samples: tuple[Sample, ...]) -> list[torch.Tensor]:
    return [cache.read_pixels(sample.path, P, crop=True) for sample in samples]


def same(store: PixelStore, samples: tuple[Sample, ...]) -> bool:
    found = store.get(samples, crop=True)
    return all(torch.equal(a, b) for a, b in zip(found, expected(samples), strict=True))


def test_with_memory_enough_all_are_kept(samples: tuple[Sample, ...], free: Callable[[int], None]) -> None:
    store = PixelStore(P, CONFIG)
    store.fill(samples, crop=True)
    assert store.counts()[True] == len(samples) == 24
    assert store.used == 24 * BYTES
    assert told() == []


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize("scale", [1.0, 1.25])
def test_whole_images_are_kept_larger_by_the_scale(
    samples: tuple[Sample, ...], free: Callable[[int], None], mode: str, scale: float
) -> None:
    """Images of 48 x 40 pixels: their short edge at the size of evaluation, 18 pixels, times the scale."""
    p = replace(P, crop_mode=mode)
    store = PixelStore(p, replace(CONFIG, training_scale=scale))
    store.fill(samples, crop=False)
    side = round(scale * 18)
    for pixels in store.get(samples, crop=False):
        assert pixels.shape == (3, side, int(side * 48 / 40) if mode == "center" else side)
    cropped = store.get(samples, crop=True)
    assert all(torch.equal(a, cache.read_pixels(s.path, p, crop=True)) for a, s in zip(cropped, samples, strict=True))


def test_while_it_fills_it_stops_and_gives_up_half(samples: tuple[Sample, ...], free: Callable[[int], None]) -> None:
    store = PixelStore(P, CONFIG)
    seen = 0

    def on_image() -> None:
        nonlocal seen
        seen += 1
        if seen == 10:
            free(999)  # from now on, another program has the rest
        elif seen == 12:
            free(10**9)

    assert store.fill(samples, crop=True, on_image=on_image) == []
    assert 0 < store.counts()[True] <= 5
    assert store.used == store.counts()[True] * BYTES
    assert len(told()) >= 1
    assert same(store, samples), "what is not kept is decoded again"


def test_as_it_is_used_it_shrinks_to_nothing_if_need_be(
    samples: tuple[Sample, ...], free: Callable[[int], None]
) -> None:
    store = PixelStore(P, CONFIG)
    store.fill(samples, crop=True)
    free(10)
    kept = []
    for _ in range(6):
        assert same(store, samples)
        kept.append(store.counts()[True])
    assert kept == [12, 6, 3, 1, 0, 0]
    assert store.used == 0
    assert told()[0] == "memory is short: of 24 decoded images 12 are kept, the others decoded again"
    free(10**9)
    store.fill(samples, crop=True)
    assert store.counts()[True] == 0, "it takes nothing in again: what was short once will be short again"


def test_the_reserve_of_a_small_machine_is_a_share_of_it(free: Callable[[int], None]) -> None:
    free(1000)
    assert PixelStore(P, StoreConfig(memory_share=0.3)).reserve == 300


def test_memory_is_looked_at_now_and_then_alone(
    samples: tuple[Sample, ...], free: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = PixelStore(P, StoreConfig(check_seconds=60.0))
    store.fill(samples, crop=True)
    monkeypatch.setattr(cache, "free_memory", lambda: pytest.fail("it was looked at"))
    store.get(samples, crop=True)


def test_an_image_that_memory_is_too_small_for_is_left_out(
    samples: tuple[Sample, ...], free: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    original, big = cache.read_pixels, samples[3].path

    def read(path: Path, *args: Any, **options: Any) -> torch.Tensor:
        if path == big:
            raise MemoryError
        return original(path, *args, **options)

    monkeypatch.setattr(cache, "read_pixels", read)
    (failure,) = PixelStore(P, CONFIG).fill(samples, crop=True)
    assert (failure.path, failure.reason) == (big, "too large: not enough memory for it")


def test_threads_may_read_while_it_shrinks(samples: tuple[Sample, ...], free: Callable[[int], None]) -> None:
    """Batches are made in one thread while another one validates, and memory may be short just then."""
    store = PixelStore(P, replace(CONFIG, check_seconds=1e9))
    store.fill(samples, crop=True)
    wanted, errors, short = expected(samples), list[BaseException](), threading.Event()

    def read() -> None:
        more = 30
        try:
            while more:
                more -= short.is_set()
                found = store.get(samples, crop=True)
                assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
        except BaseException as error:  # noqa: BLE001 - told in the main thread
            errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    free(0)
    store.check_every = 0.0
    short.set()
    for thread in threads:
        thread.join()
    assert errors == []
    assert store.counts()[True] < len(samples)

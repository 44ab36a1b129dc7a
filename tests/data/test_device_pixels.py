"""Images on the device are those of the store; where they do not fit, the store is asked."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.helpers import write_images
from tl_kit.config import StoreConfig
from tl_kit.data import device_pixels
from tl_kit.data.device_pixels import DevicePixels
from tl_kit.data.manifest import Sample
from tl_kit.data.pixel_store import PixelStore
from tl_kit.data.scan import scan
from tl_kit.images.transforms import Preprocessing

P = Preprocessing((3, 16, 16), "bicubic", 0.875, "center", (0.5,) * 3, (0.5,) * 3)
CPU = torch.device("cpu")


@pytest.fixture
def samples(tmp_path: Path) -> tuple[Sample, ...]:
    return scan(write_images(tmp_path / "images", images=8)).samples


def filled(samples: tuple[Sample, ...], config: StoreConfig = StoreConfig()) -> PixelStore:
    store = PixelStore(P, config)
    store.fill(samples, crop=False)
    return store


@pytest.mark.parametrize("chunk", [1, 2000, 2**26])
def test_they_are_the_stores_in_any_number_of_transfers(
    samples: tuple[Sample, ...], chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_pixels, "_CHUNK", chunk)
    store = filled(samples)
    found = DevicePixels(store, samples, crop=False, device=CPU, budget=2**30)
    assert found.on_device
    order = [samples[i] for i in (5, 0, 5, 3)]
    expected = store.get(order, crop=False)
    assert all(torch.equal(a, b) for a, b in zip(found.get(order), expected, strict=True))


def test_copies_of_a_file_are_there_once(samples: tuple[Sample, ...]) -> None:
    store = filled(samples)
    needed = sum(pixels.nbytes for pixels in store.get(samples, crop=False))
    assert DevicePixels(store, (*samples, *samples), crop=False, device=CPU, budget=needed).on_device


def test_more_than_the_budget_or_than_the_store_has_stays_in_the_store(samples: tuple[Sample, ...]) -> None:
    store = filled(samples)
    needed = sum(pixels.nbytes for pixels in store.get(samples, crop=False))
    small = DevicePixels(store, samples, crop=False, device=CPU, budget=needed - 1)
    lacking = DevicePixels(filled(samples[:3]), samples, crop=False, device=CPU, budget=2**30)
    for found in (small, lacking, DevicePixels(store, samples, crop=False, device=CPU)):
        assert not found.on_device
        pairs = zip(found.get(samples[:2]), store.get(samples[:2], crop=False), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_given_up_the_store_has_them(samples: tuple[Sample, ...]) -> None:
    store = filled(samples)
    found = DevicePixels(store, samples, crop=False, device=CPU, budget=2**30)
    assert found.give_up()
    assert not found.on_device
    assert not found.give_up()
    assert all(a is b for a, b in zip(found.get(samples), store.get(samples, crop=False), strict=True))

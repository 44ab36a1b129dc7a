"""The resize inside the graph gives Pillow's pixels, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from tl_kit.config import CropConfig
from tl_kit.exporting.classifier import _views
from tl_kit.exporting.resample import Views, _columns_first, _rows_first, pillow_may_begin_with_rows
from tl_kit.images.crops import crop_views
from tl_kit.images.geometry import Geometry
from tl_kit.images.transforms import Preprocessing

# Larger, smaller, one of each, far longer than wide, and a single pixel.
SIZES = ((40, 48), (133, 97), (30, 21), (100, 37), (37, 100), (7, 9), (3, 130), (130, 3), (32, 32), (1, 1))


def preprocessing(interpolation: str, mode: str, crop_pct: float = 0.875) -> Preprocessing:
    size = (3, 32, 32) if mode == "center" else (3, 24, 32)
    return Preprocessing(size, interpolation, crop_pct, mode, (0.4, 0.5, 0.6), (0.2, 0.2, 0.2))


def noise(height: int, width: int, seed: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_pixels_are_those_of_the_evaluation(interpolation: str, mode: str) -> None:
    wanted = preprocessing(interpolation, mode)
    views = _views(wanted, CropConfig())
    for height, width in SIZES:
        pixels = noise(height, width)
        found = views(torch.from_numpy(pixels).permute(2, 0, 1)[None])
        assert found.shape == (1, 1, *wanted.input_size)
        assert torch.equal(found[0, 0].to(torch.uint8), wanted.evaluate(Image.fromarray(pixels))), (height, width)
        assert torch.equal(found, found.round())


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize("crops", [CropConfig(crops=10), CropConfig(crops=5, scales=(1.25, 1.0))], ids=str)
def test_crops_are_the_crops_of_test_time_in_their_order(mode: str, crops: CropConfig) -> None:
    wanted = preprocessing("bilinear", mode)
    views = _views(wanted, crops)
    for height, width in ((40, 48), (100, 37), (20, 90)):
        pixels = noise(height, width)
        found = views(torch.from_numpy(pixels).permute(2, 0, 1)[None])[0]
        assert torch.equal(found.to(torch.uint8), crop_views(Image.fromarray(pixels), wanted, crops))


def matrices(size: tuple[int, int], wanted: tuple[int, int]) -> list[torch.Tensor]:
    views = Views(Geometry(wanted, None, Image.Resampling.BICUBIC, wanted, (0, 0, 0)), wanted, float("inf"))
    zero = torch.zeros((), dtype=torch.float64)
    return [
        views._weights(side, zero, zero + side, zero + aim, aim, 0.5, [])
        for side, aim in zip(size, wanted, strict=True)
    ]


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("size", "wanted"), [((60, 20), (10, 18)), ((20, 60), (18, 10)), ((30, 30), (31, 29))])
def test_each_order_of_the_passes_is_pillows_two_resizes(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    pixels = noise(*size)
    image, kind = Image.fromarray(pixels), Image.Resampling.BICUBIC
    (height, width), (h, w) = size, wanted
    given = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    rows, columns = matrices(size, wanted)
    one = image.resize((w, height), kind).resize((w, h), kind)
    two = image.resize((width, h), kind).resize((w, h), kind)
    for found, expected in ((_columns_first(given, rows, columns), one), (_rows_first(given, rows, columns), two)):
        assert np.array_equal(found[0].permute(1, 2, 0).numpy(), np.asarray(expected))
    assert one.tobytes() != two.tobytes()


def test_pillows_order_is_found_out() -> None:
    from PIL import __version__

    assert pillow_may_begin_with_rows() is (int(__version__.partition(".")[0]) >= 13)

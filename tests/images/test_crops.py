"""Test-time crops against slices of timm's own resized image, and the choices that are refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.transforms import ResizeKeepRatio
from torchvision.transforms import InterpolationMode, Resize

from tl_kit.config import CropConfig
from tl_kit.errors import ConfigError
from tl_kit.images.crops import check_crops, check_fit, crop_views, decode_side
from tl_kit.images.transforms import Preprocessing

MODES = ["center", "squash", "border"]
SIZES = [(400, 534), (641, 479), (100, 100), (37, 211), (3000, 40)]


def photo(width: int, height: int, *, seed: int = 0) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 255, (9, 9, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def preprocessing(
    size: tuple[int, int] = (64, 64), *, crop_pct: float = 0.8, crop_mode: str = "center"
) -> Preprocessing:
    return Preprocessing((3, *size), "bicubic", crop_pct, crop_mode, (0.5, 0.4, 0.3), (0.5, 0.5, 0.5))


def slices(resized: np.ndarray, side: int) -> list[np.ndarray]:
    """The ten square crops of an image (h, w, 3), by their definition."""
    height, width = resized.shape[:2]
    top, left = round((height - side) / 2), round((width - side) / 2)
    five = [
        resized[top : top + side, left : left + side],
        resized[:side, :side],
        resized[:side, -side:],
        resized[-side:, :side],
        resized[-side:, -side:],
    ]
    return [*five, *(crop[:, ::-1] for crop in five)]


@pytest.mark.parametrize("crops", [1, 5, 10])
@pytest.mark.parametrize("scale", [0.8, 1.0, 1.15, 1.5])
@pytest.mark.parametrize("size", [(400, 534), (641, 479), (100, 100), (37, 211)])
def test_crops_are_slices_of_the_resized_image(crops: int, scale: float, size: tuple[int, int]) -> None:
    image = photo(*size)
    resized = np.asarray(Resize(round(80 * scale), InterpolationMode.BICUBIC)(image))
    views = crop_views(image, preprocessing(), CropConfig(crops=crops, scales=(scale,)))
    assert views.dtype == torch.uint8
    np.testing.assert_array_equal(views.permute(0, 2, 3, 1).numpy(), np.stack(slices(resized, 64)[:crops]))


def test_squashed_images_are_cropped_from_the_square() -> None:
    image = photo(300, 170)
    resized = np.asarray(Resize((92, 92), InterpolationMode.BICUBIC)(image))
    p = preprocessing(crop_mode="squash")
    views = crop_views(image, p, CropConfig(crops=10, scales=(1.15,)))
    np.testing.assert_array_equal(views.permute(0, 2, 3, 1).numpy(), np.stack(slices(resized, 64)))


def test_bordered_images_are_padded_before_they_are_cropped() -> None:
    image = photo(300, 150)
    resized = np.asarray(ResizeKeepRatio((92, 92), longest=1.0, interpolation="bicubic")(image))
    assert resized.shape == (46, 92, 3)
    canvas = np.empty((64, 92, 3), dtype=np.uint8)
    canvas[:] = [round(255 * value) for value in (0.5, 0.4, 0.3)]
    canvas[9:55] = resized
    p = preprocessing(crop_mode="border")
    views = crop_views(image, p, CropConfig(crops=10, scales=(1.15,)))
    np.testing.assert_array_equal(views.permute(0, 2, 3, 1).numpy(), np.stack(slices(canvas, 64)))


@pytest.mark.parametrize("crop_mode", MODES)
@pytest.mark.parametrize("image_size", SIZES)
@pytest.mark.parametrize(
    ("size", "crop_pct"), [((64, 64), 0.8), ((65, 65), 0.8), ((64, 64), 1.0), ((64, 48), 0.8), ((64, 64), 1.15)]
)
@pytest.mark.parametrize("crops", [1, 5])
def test_the_centre_at_scale_1_is_the_evaluation_image(
    crop_mode: str, image_size: tuple[int, int], size: tuple[int, int], crop_pct: float, crops: int
) -> None:
    """Also where timm pads, which only images from here can be: ``check_fit`` refuses five crops of them."""
    image, p = photo(*image_size), preprocessing(size, crop_pct=crop_pct, crop_mode=crop_mode)
    views = crop_views(image, p, CropConfig(crops=crops))
    assert views.shape == (crops, 3, *size)
    assert torch.equal(views[0], p.evaluate(image))


def test_views_stand_by_ascending_scale_in_whatever_order_scales_are_given() -> None:
    image, p = photo(90, 120), preprocessing()
    one = [crop_views(image, p, CropConfig(crops=5, scales=(scale,))) for scale in (0.9, 1.0, 1.3)]
    for scales in [(0.9, 1.0, 1.3), (1.3, 0.9, 1.0)]:
        assert torch.equal(crop_views(image, p, CropConfig(crops=5, scales=scales)), torch.cat(one))


@pytest.mark.parametrize(("width", "shift"), [(96, 0), (97, 1)])
def test_ten_crops_of_the_mirror_image_are_the_same_ten(width: int, shift: int) -> None:
    """But for the centre, one pixel aside where it cannot stand in the middle. Without a resize: it rounds its own."""
    image, p = photo(width, 80), preprocessing()
    assert torch.equal(p.resize(image), torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1))
    config = CropConfig(crops=10)
    here = crop_views(image, p, config)
    there = crop_views(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), p, config)
    mirrored = [5, 7, 6, 9, 8, 0, 2, 1, 4, 3]  # the left corner of the one is the right corner of the other
    assert torch.equal(there[mirrored][[1, 2, 3, 4, 6, 7, 8, 9]], here[[1, 2, 3, 4, 6, 7, 8, 9]])
    centre = there[5]
    if shift:
        assert not torch.equal(centre, here[0])
    assert torch.equal(centre[:, :, : 64 - shift], here[0][:, :, shift:])


def test_the_decoder_is_asked_for_the_largest_scale() -> None:
    p = preprocessing()
    assert decode_side(p, CropConfig()) == p.min_side == 80
    assert decode_side(p, CropConfig(scales=(1.5, 1.0))) == 120
    assert decode_side(p, CropConfig(scales=(0.8,))) == 64


@pytest.mark.parametrize("crops", [0, 2, -1, True, "5", 5.0, None])
def test_other_numbers_of_crops_are_refused(crops: object) -> None:
    with pytest.raises(ConfigError, match=r"^--crops .*1, 5 or 10$"):
        check_crops(CropConfig(crops=crops))


@pytest.mark.parametrize(
    "scales",
    [(), (0.0,), (-1.0,), (math.nan,), (math.inf,), (5.0,), (1.0, 1.0), (1.0, 1), tuple(1 + n / 10 for n in range(9))],
)
def test_scales_that_are_none_are_refused(scales: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match=r"^--scales ") as caught:
        check_crops(CropConfig(scales=scales))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("crop_mode", MODES)
@pytest.mark.parametrize("crop_pct", [0.8, 0.875, 0.965, 1.0, 1.15])
@pytest.mark.parametrize("size", [(64, 64), (224, 224), (96, 64)])
def test_a_scale_below_the_crop_is_refused_and_the_one_named_instead_is_taken(
    crop_mode: str, crop_pct: float, size: tuple[int, int]
) -> None:
    p = preprocessing(size, crop_pct=crop_pct, crop_mode=crop_mode)
    with pytest.raises(ConfigError, match=r"^--scales 0\.5: .* of ckpts/a; from [\d.]+ on") as caught:
        check_fit(CropConfig(crops=5, scales=(0.5, 2.0)), p, name="ckpts/a")
    least = float(str(caught.value).split("from ")[1].split(" on")[0])
    check_fit(CropConfig(crops=5, scales=(least,)), p, name="ckpts/a")
    with pytest.raises(ConfigError):
        check_fit(CropConfig(crops=5, scales=(least - 0.03,)), p, name="ckpts/a")


def test_the_models_own_evaluation_is_never_refused() -> None:
    p = preprocessing(crop_pct=1.15)  # volo's card: resized to less than the input, and padded
    check_fit(CropConfig(), p, name="ckpts/a")
    with pytest.raises(ConfigError, match=r"^--scales 1: "):
        check_fit(CropConfig(crops=5), p, name="ckpts/a")

"""Every mode of Pillow against the definition of its pixel values."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

from tests.data.images import encoded, png, ppm, ycck_jpeg
from tests.images.decoding import ALPHA, RAMP, RAMP16, RGB, grey, pixels, reason


def on_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Porter and Duff's "over" with white below."""
    share = alpha[..., None] / 255
    return colour * share + 255 * (1 - share)


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "BMP", "PPM"])
def test_rgb_and_grey_are_exact(file_format):
    np.testing.assert_array_equal(pixels(encoded(Image.fromarray(RGB), file_format)), RGB)
    np.testing.assert_array_equal(pixels(encoded(Image.fromarray(RAMP), file_format)), grey(RAMP))


@pytest.mark.parametrize(
    ("file_format", "options"),
    [
        ("WEBP", {"lossless": True}),
        ("JPEG2000", {"irreversible": False}),
        ("AVIF", {"quality": 100, "subsampling": "4:4:4"}),
    ],
)
def test_newer_formats(file_format, options):
    Image.init()
    if file_format not in Image.SAVE:
        pytest.skip(f"this Pillow has no {file_format}")
    tolerance = 12 if file_format == "AVIF" else 0
    smooth = np.stack([RAMP, RAMP.T, RAMP[::-1]], axis=2)
    data = encoded(Image.fromarray(smooth), file_format, **options)
    np.testing.assert_allclose(pixels(data), smooth, atol=tolerance)


def test_one_bit():
    bits = RAMP % 3 == 0
    np.testing.assert_array_equal(pixels(encoded(Image.fromarray(bits), "PNG")), grey(bits * 255))


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "WEBP"])
def test_alpha_goes_onto_white(file_format):
    rgba = Image.fromarray(np.dstack([RGB, ALPHA]))
    options = {"lossless": True, "exact": True} if file_format == "WEBP" else {}
    np.testing.assert_allclose(pixels(encoded(rgba, file_format, **options)), on_white(RGB, ALPHA), atol=1)


def test_an_opaque_alpha_channel_changes_nothing():
    rgba = Image.fromarray(np.dstack([RGB, np.full_like(ALPHA, 255)]))
    np.testing.assert_array_equal(pixels(encoded(rgba, "PNG")), RGB)


def test_grey_with_alpha():
    la = Image.merge("LA", [Image.fromarray(RAMP), Image.fromarray(ALPHA)])
    np.testing.assert_allclose(pixels(encoded(la, "PNG")), on_white(grey(RAMP), ALPHA), atol=1)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_premultiplied_alpha(mode):
    whole = Image.fromarray(np.dstack([RGB, ALPHA])).convert(mode)
    np.testing.assert_allclose(pixels(whole.convert(mode[:-1] + "a")), pixels(whole), atol=2)


def test_palette_with_one_transparent_entry():
    image = Image.fromarray(RAMP % 4).convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120])
    table = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90], [100, 110, 120]])
    np.testing.assert_array_equal(pixels(encoded(image, "PNG")), table[RAMP % 4])
    table[2] = 255
    np.testing.assert_array_equal(pixels(encoded(image, "PNG", transparency=2)), table[RAMP % 4])
    np.testing.assert_array_equal(pixels(encoded(image, "GIF", transparency=2)), table[RAMP % 4])


def test_palette_with_alpha_for_each_entry():
    image = Image.fromarray(RAMP % 4).convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120])
    alpha = np.array([255, 128, 0, 64], dtype=np.uint8)
    table = on_white(np.array([[[10, 20, 30], [40, 50, 60], [70, 80, 90], [100, 110, 120]]]), alpha[None])[0]
    data = encoded(image, "PNG", transparency=alpha.tobytes())
    np.testing.assert_allclose(pixels(data), table[RAMP % 4], atol=1)


def test_grey_and_rgb_with_a_transparent_colour():
    expected = grey(np.where(RAMP == 7, 255, RAMP))
    np.testing.assert_array_equal(pixels(encoded(Image.fromarray(RAMP), "PNG", transparency=7)), expected)
    key = tuple(int(value) for value in RGB[3, 4])
    expected = np.where((key == RGB).all(axis=2, keepdims=True), 255, RGB)
    np.testing.assert_array_equal(pixels(encoded(Image.fromarray(RGB), "PNG", transparency=key)), expected)


@pytest.mark.parametrize(
    "data",
    [
        png(RAMP16[..., None], colour_type=0),
        encoded(Image.fromarray(RAMP16), "TIFF"),
        encoded(Image.frombytes("I;16B", (16, 16), RAMP16.astype(">u2").tobytes()), "TIFF"),
        ppm(RAMP16),
        encoded(Image.fromarray(RAMP16.astype(np.int32)), "TIFF"),
        encoded(Image.fromarray(RAMP16.astype(np.float32)), "TIFF"),
    ],
    ids=["png", "tiff", "tiff big-endian", "pgm", "tiff int32", "tiff float32"],
)
def test_sixteen_bit_grey_is_scaled_not_clipped(data):
    np.testing.assert_array_equal(pixels(data), grey(RAMP16 >> 8))


def test_a_dark_sixteen_bit_image_stays_dark():
    np.testing.assert_array_equal(pixels(png(RAMP16[..., None] // 16, colour_type=0)), grey(RAMP16 // 16 >> 8))


def test_sixteen_bit_colour():
    samples = RGB.astype(np.uint16) * 257
    np.testing.assert_array_equal(pixels(png(samples, colour_type=2)), RGB)
    np.testing.assert_array_equal(pixels(ppm(samples)), RGB)


def test_sixteen_bit_alpha():
    alpha = ALPHA.astype(np.uint16)[..., None] * 257
    colour = np.concatenate([RGB.astype(np.uint16) * 257, alpha], axis=2)
    np.testing.assert_allclose(pixels(png(colour, colour_type=6)), on_white(RGB, ALPHA), atol=1)
    shade = np.concatenate([RAMP16[..., None], alpha], axis=2)
    np.testing.assert_allclose(pixels(png(shade, colour_type=4)), on_white(grey(RAMP), ALPHA), atol=1)


def test_sixteen_bit_transparent_colour():
    expected = grey(np.where(RAMP == 7, 255, RAMP))
    data = png(RAMP16[..., None], colour_type=0, transparency=struct.pack(">H", 7 * 257))
    np.testing.assert_array_equal(pixels(data), expected)
    samples = RGB.astype(np.uint16) * 257
    data = png(samples, colour_type=2, transparency=struct.pack(">3H", *samples[3, 4]))
    expected = np.where((RGB[3, 4] == RGB).all(axis=2, keepdims=True), 255, RGB)
    np.testing.assert_array_equal(pixels(data), expected)


@pytest.mark.parametrize(
    ("samples", "levels"),
    [
        (RAMP / 255, RAMP),
        (RAMP * 1.0, RAMP),
        (RAMP * 1e6, RAMP),
        (RAMP - 128.0, RAMP),
        (np.full((16, 16), 1e9), np.zeros((16, 16))),
        (np.where(RAMP == 9, np.nan, RAMP / 255), np.where(RAMP == 9, 0, RAMP)),
    ],
    ids=["0..1", "0..255", "large", "signed", "constant", "nan"],
)
def test_float(samples, levels):
    np.testing.assert_array_equal(pixels(encoded(Image.fromarray(samples.astype(np.float32)), "TIFF")), grey(levels))


@pytest.mark.parametrize("factor", [1, 100_000])
def test_thirty_two_bit_integers(factor):
    data = encoded(Image.fromarray(RAMP.astype(np.int32) * factor), "TIFF")
    np.testing.assert_array_equal(pixels(data), grey(RAMP))


@pytest.mark.parametrize("file_format", ["TIFF", "JPEG"])
def test_cmyk(file_format):
    cyan, magenta, yellow, black = 200, 30, 90, 40
    options = {"quality": 100} if file_format == "JPEG" else {}
    data = encoded(Image.new("CMYK", (16, 16), (cyan, magenta, yellow, black)), file_format, **options)
    expected = [(255 - ink) * (255 - black) / 255 for ink in (cyan, magenta, yellow)]
    np.testing.assert_allclose(pixels(data), np.broadcast_to(expected, (16, 16, 3)), atol=2)


def test_ycck():
    luma, blue, red, black = 140, 110, 150, 200  # as stored; Adobe stores K inverted, so 200 is a light black
    rgb = [
        luma + 1.402 * (red - 128),
        luma - 0.344136 * (blue - 128) - 0.714136 * (red - 128),
        luma + 1.772 * (blue - 128),
    ]
    data = ycck_jpeg((luma, blue, red, black))
    # The three are 255 - CMY, and of Adobe's inverted CMY at that: what is left of the light after C, M or Y, then K.
    expected = [(255 - value) * black / 255 for value in rgb]
    np.testing.assert_allclose(pixels(data), np.broadcast_to(expected, (16, 16, 3)), atol=3)


@pytest.mark.parametrize("mode", ["YCbCr", "HSV", "RGBX", "PA"])
def test_modes_of_pillow_images(mode):
    flat = Image.new("RGB", (4, 4), (200, 100, 50))
    source = flat.convert("P").convert("PA") if mode == "PA" else flat.convert(mode)
    np.testing.assert_allclose(pixels(source), np.asarray(flat), atol=4 if mode != "PA" else 30)


def test_lab_is_refused_by_name():
    assert "LAB" in reason(encoded(Image.new("LAB", (4, 4)), "TIFF"))


@pytest.mark.parametrize("file_format", ["GIF", "PNG", "WEBP", "TIFF", "MPO"])
def test_the_first_frame_of_several(file_format):
    colours = [(200, 30, 30), (30, 200, 30), (30, 30, 200)]
    frames = [Image.new("RGB", (16, 16), colour) for colour in colours]
    options = {"lossless": True} if file_format == "WEBP" else {}
    data = encoded(frames[0], file_format, save_all=True, append_images=frames[1:], **options)
    assert getattr(Image.open(io.BytesIO(data)), "n_frames", 1) == 3
    np.testing.assert_allclose(pixels(data), np.asarray(frames[0]), atol=3)

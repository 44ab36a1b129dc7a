"""The decoder: pixel values of every mode against their definition, orientation, damage, and what it leaves alone."""

from __future__ import annotations

import io
import struct
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps

from tests.data.images import STORED, encoded, huge_bmp, noise, png, ppm, ycck_jpeg
from tl_kit.config import DecodeConfig
from tl_kit.data.decode import FORMATS, check_header, decode, sniff
from tl_kit.errors import ImageError

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)
RAMP16 = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)  # 0 to 65535
RGB = noise(0, height=16, width=16)
ALPHA = noise(1, height=16, width=16)[..., 0]


def pixels(source) -> np.ndarray:
    image = decode(source)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def grey(levels: np.ndarray) -> np.ndarray:
    return np.repeat(levels[..., None], 3, axis=2).astype(int)


def on_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Porter and Duff's "over" with white below."""
    share = alpha[..., None] / 255
    return colour * share + 255 * (1 - share)


def reason(source, **options) -> str:
    with pytest.raises(ImageError) as caught:
        decode(source, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def outcome(source, **options) -> Image.Image | str:
    try:
        return decode(source, **options)
    except ImageError as error:
        return str(error)


# --- modes -----------------------------------------------------------------------------------------------------------


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


# --- orientation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "WEBP", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation, file_format):
    upright = np.kron(noise(3, height=2, width=3), np.ones((16, 16, 1), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(file_format, {})
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    data = encoded(stored, file_format, exif=exif, **options)
    tolerance = 6 if file_format == "JPEG" else 0
    np.testing.assert_allclose(pixels(data), upright, atol=tolerance)
    reference = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    np.testing.assert_array_equal(pixels(data), np.asarray(reference))


@pytest.mark.parametrize("orientation", [0, 9, 255])
def test_orientations_that_mean_nothing_are_ignored(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(pixels(encoded(Image.fromarray(RGB), "PNG", exif=exif)), RGB)


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0II*\0\xff\xff\xff\xff"]
)
def test_broken_exif_costs_nothing_but_itself(exif):
    data = encoded(Image.fromarray(RAMP), "JPEG", quality=100, exif=exif)
    np.testing.assert_allclose(pixels(data), grey(RAMP), atol=4)


# --- sources ---------------------------------------------------------------------------------------------------------


def test_the_content_decides_not_the_ending(tmp_path):
    for ending, file_format in [("jpg", "PNG"), ("png", "BMP"), ("txt", "TIFF"), ("", "PPM")]:
        file = tmp_path / f"image.{ending}"
        file.write_bytes(encoded(Image.fromarray(RGB), file_format))
        np.testing.assert_array_equal(pixels(file), RGB)
        np.testing.assert_array_equal(pixels(file.read_bytes()), RGB)


def test_a_pillow_image_is_not_changed():
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.open(io.BytesIO(encoded(Image.fromarray(RGB[:, :8]), "PNG", exif=exif)))
    assert decode(image).size == (16, 8)
    assert image.size == (8, 16)
    assert image.getexif()[0x0112] == 6
    np.testing.assert_array_equal(np.asarray(image), RGB[:, :8])


def test_paths_that_cannot_be_read(tmp_path):
    assert reason(tmp_path / "none.jpg").startswith("cannot be read: ")
    assert reason(tmp_path).startswith("cannot be read: ")


# --- draft mode ------------------------------------------------------------------------------------------------------


@given(
    width=st.integers(16, 700), height=st.integers(16, 700), min_side=st.integers(1, 200), orientation=st.integers(1, 8)
)
@settings(max_examples=40, deadline=None)
def test_a_draft_is_the_smallest_scale_that_keeps_twice_min_side(width, height, min_side, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.new("RGB", (width, height), "teal"), "JPEG", exif=exif)
    scale = max(s for s in (1, 2, 4, 8) if s == 1 or min(width, height) // s >= 2 * min_side)
    expected = (-(-width // scale), -(-height // scale))
    assert decode(data, min_side=min_side).size == (expected if orientation < 5 else expected[::-1])


def test_a_draft_shows_the_same_picture():
    rows, columns = np.mgrid[0:256, 0:384]
    smooth = np.stack([rows, columns * 255 / 383, 255 - rows], axis=2).astype(np.uint8)
    image = Image.fromarray(smooth)
    drafted = decode(encoded(image, "JPEG", quality=95), min_side=30)
    assert drafted.size == (96, 64)
    np.testing.assert_allclose(np.asarray(drafted).astype(int), np.asarray(image.reduce(4)).astype(int), atol=6)


def test_only_jpeg_is_drafted_and_only_on_request():
    large = Image.new("RGB", (640, 480), "teal")
    assert decode(encoded(large, "PNG"), min_side=10).size == (640, 480)
    assert decode(encoded(large, "JPEG")).size == (640, 480)
    opened = Image.open(io.BytesIO(encoded(large, "JPEG")))
    assert decode(opened, min_side=10).size == (640, 480)


# --- damage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM"])
@pytest.mark.parametrize("share", [0.5, 0.75, 0.95])
def test_truncated_files_are_refused(file_format, share):
    data = encoded(Image.fromarray(noise(4, height=48, width=48)), file_format)
    text = reason(data[: int(len(data) * share)])
    assert text == "truncated" or (file_format == "WEBP" and text.startswith("damaged: "))


def test_truncated_jpegs_are_refused_in_draft_mode_too():
    data = encoded(Image.fromarray(noise(4, height=256, width=256)), "JPEG")
    assert reason(data[: len(data) // 2], min_side=16) == "truncated"


@pytest.mark.parametrize(
    "data", [b"hello world, this is text", b"Python 3", b"P", b"BMW is a car", b"\0\0\1\0", b"\0" * 99]
)
def test_what_is_not_an_image(data):
    assert reason(data) == "not an image"


def test_other_refusals_have_their_reason():
    assert reason(b"") == "empty file"
    assert "HEIC" in reason(b"\0\0\0\x18ftypheic\0\0\0\0")
    assert "PostScript" in reason(encoded(Image.fromarray(RGB), "EPS"))
    assert reason(b"\x89PNG\r\n\x1a\n" + b"\0" * 40).startswith("damaged: ")


def test_formats_that_start_other_programs_are_not_accepted():
    assert not {"EPS", "WMF", "GRIB", "HDF5"} & set(FORMATS)
    assert not sniff(encoded(Image.fromarray(RGB), "EPS")[:16])


def test_decompression_bombs_are_refused_before_their_pixels():
    bomb = huge_bmp(width=30000, height=30000)
    assert reason(bomb).startswith("too large: 30000x30000 pixels, decompression bomb limit")
    data = encoded(Image.fromarray(RGB), "PNG")
    assert decode(data, config=DecodeConfig(max_pixels=256)).size == (16, 16)
    assert reason(data, config=DecodeConfig(max_pixels=255)).startswith("too large: 16x16 pixels")
    with pytest.raises(ImageError, match="too large"):
        check_header(bomb)


def test_neither_warnings_nor_pillows_flags(monkeypatch):
    """The limit is ours: Pillow's own, and its warning, neither help nor hinder, and stay as they were."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 150)  # 256 pixels would warn
    tiff = encoded(Image.fromarray(RGB), "TIFF")
    odd = tiff.replace(struct.pack("<HHI", 259, 3, 1), struct.pack("<HHI", 259, 3, 9))  # a tag of the wrong length
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        np.testing.assert_array_equal(pixels(encoded(Image.fromarray(RGB), "PNG")), RGB)
        np.testing.assert_array_equal(pixels(tiff), RGB)
        outcome(odd)
    assert caught == []
    assert Image.MAX_IMAGE_PIXELS == 150
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_warnings_of_pillow_are_hushed_even_when_they_are_errors():
    mpo = encoded(Image.fromarray(RGB), "MPO", save_all=True, append_images=[Image.fromarray(RGB)])
    at = mpo.index(b"MPF\0")
    malformed = mpo[: at + 12] + b"\xff" * 8 + mpo[at + 20 :]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="MPO"):
            Image.open(io.BytesIO(malformed))
        assert decode(malformed).size == (16, 16)


VALID = [encoded(Image.fromarray(RGB), name) for name in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "ICO")]


@given(
    data=st.sampled_from(VALID),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8),
    end=st.floats(0.02, 1),
)
@settings(max_examples=150, deadline=None)
def test_damage_of_any_kind_ends_in_an_image_or_an_image_error(data, changes, end):
    broken = bytearray(data)
    for position, value in changes:
        broken[int(position * len(data))] = value
    broken = bytes(broken[: int(end * len(data))])
    config = DecodeConfig(max_pixels=2**20)
    result = outcome(broken, config=config)
    assert result
    if isinstance(result, Image.Image):
        assert result.mode == "RGB"
        check_header(broken, config=config)  # what decodes has a sound header


def test_many_threads_give_what_one_gives():
    sources = [*VALID, b"text", VALID[0][:400], png(RAMP16[..., None], colour_type=0)] * 20

    def one(source: bytes) -> bytes | str:
        result = outcome(source, min_side=4)
        return result if isinstance(result, str) else result.tobytes()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(one, sources)) == [one(source) for source in sources]

"""The decoder: orientation, sources, draft mode, damage, and what it leaves alone."""

from __future__ import annotations

import io
import os
import struct
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps

from tests.data.images import STORED, encoded, huge_bmp, noise, png
from tests.images.decoding import RAMP, RAMP16, RGB, grey, outcome, pixels, reason
from tl_kit.config import DecodeConfig
from tl_kit.errors import ImageError
from tl_kit.images.decode import (
    FORMATS,
    check_header,
    decode,
    in_pool,
    open_header,
    read_file,
    sniff,
    upright_size,
)


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
    assert upright_size(open_header(data)) == (48, 32)


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
    assert reason(tmp_path) == "is a folder"


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
    assert odd != tiff
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


@pytest.mark.parametrize("count", [0, 1, 7, 1000])
def test_work_on_the_decoders_threads_keeps_the_items_order(count: int) -> None:
    items = list(range(count))
    assert list(in_pool(lambda item: -item, items)) == [-item for item in items]


def test_an_error_on_the_decoders_threads_is_raised_where_its_result_is_taken() -> None:
    found = in_pool(lambda item: 1 // (item - 500), range(1000))
    with pytest.raises(ZeroDivisionError):
        list(found)


@pytest.mark.parametrize("longest", [2**30, 1000])
@pytest.mark.parametrize("side", [10, 600])
def test_a_file_is_read_whole_whatever_a_call_returns(
    side: int, longest: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one longer than is read at first, and where the system gives fewer bytes than it was asked for."""
    data, read = encoded(Image.fromarray(noise(0, height=side, width=side)), "BMP"), os.read
    (tmp_path / "photo.bmp").write_bytes(data)
    monkeypatch.setattr(os, "read", lambda file, size: read(file, min(size, longest)))
    assert read_file(tmp_path / "photo.bmp") == data


def test_a_jpeg_with_many_markers_in_its_pixels_is_read() -> None:
    """The second byte of a scan's marker is frequent in a large photo: only both bytes together count."""
    data = encoded(Image.fromarray(noise(0, height=500, width=500)), "JPEG", quality=100)
    config = DecodeConfig(max_scans=5)
    assert data.count(b"\xda") > config.max_scans
    assert decode(data, config=config).size == (500, 500)

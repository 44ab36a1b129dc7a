"""Deep images: every bit of every kind of file is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.data.images import encoded, netpbm, png, ppm, tiff
from tests.images.decoding import PICTURE, SHADES, pixels
from tl_kit.errors import ImageError
from tl_kit.images.decode import decode, decode_samples
from tl_kit.images.deep import SampleRanges

HEIGHT, WIDTH = 37, 45
GREY = np.random.default_rng(0).integers(0, 4096, (HEIGHT, WIDTH)).astype(np.uint16)
COLOUR = np.random.default_rng(1).integers(0, 4096, (HEIGHT, WIDTH, 3)).astype(np.uint16)


def with_alpha(colour: np.ndarray) -> np.ndarray:
    return np.dstack([colour, np.full(colour.shape[:2], 65535, np.uint16)])


LAYOUTS: dict[str, dict[str, Any]] = {
    "one strip": {},
    "strips": {"rows": 5},
    "tiles": {"tile": 16},
    "deflate": {"deflate": True, "rows": 5},
    "deflate, tiles": {"deflate": True, "tile": 16},
}
SAMPLES: dict[str, tuple[np.ndarray, np.ndarray, dict[str, Any]]] = {
    "uint16": (GREY, GREY, {}),
    "int16": (GREY.astype(np.int16) - 1000, GREY.astype(int) - 1000, {}),
    "int32": (GREY.astype(np.int32) * 1000 - 5, GREY.astype(int) * 1000 - 5, {}),
    "float32": (GREY.astype(np.float32) / 7, GREY.astype(np.float32) / 7, {}),
    "RGB": (COLOUR, COLOUR, {}),
    "RGB, planes": (COLOUR, COLOUR, {"planar": True}),
    "RGBX": (with_alpha(COLOUR), COLOUR, {"extra": (0,)}),
    "RGBA": (with_alpha(COLOUR), COLOUR, {"extra": (2,)}),
    "RGBA, planes": (with_alpha(COLOUR), COLOUR, {"extra": (2,), "planar": True}),
    "RGBA, premultiplied": (with_alpha(COLOUR), COLOUR, {"extra": (1,)}),
}
OTHERS: dict[str, tuple[bytes, np.ndarray]] = {
    "PNG grey": (png(GREY[..., None], colour_type=0), GREY),
    "PNG grey and alpha": (png(with_alpha(GREY), colour_type=4), GREY),
    "PNG RGB": (png(COLOUR, colour_type=2), COLOUR),
    "PNG RGBA": (png(with_alpha(COLOUR), colour_type=6), COLOUR),
    "PGM": (ppm(GREY), GREY),
    "PPM": (ppm(COLOUR), COLOUR),
    "plain PGM": (netpbm("P2", GREY, 65535), GREY),
    "plain PPM": (netpbm("P3", COLOUR, 65535), COLOUR),
    "JPEG 2000": (encoded(Image.fromarray(GREY), "JPEG2000", irreversible=False), GREY),
    "PFM": (encoded(Image.fromarray(GREY.astype(np.float32)), "PPM"), GREY),
    "uint32 TIFF": (tiff(GREY.astype(np.uint32) * 1_000_000), GREY.astype(np.int64) * 1_000_000),
}


def samples_of(folder: Path, data: bytes) -> np.ndarray:
    path = folder / "image"
    path.write_bytes(data)
    return decode_samples(path)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", SAMPLES)
def test_all_bits_of_a_tiff(kind: str, layout: str, order: str, tmp_path: Path) -> None:
    stored, expected, options = SAMPLES[kind]
    data = tiff(stored, order=order, **options, **LAYOUTS[layout])
    np.testing.assert_array_equal(samples_of(tmp_path, data), expected.ravel())


@pytest.mark.parametrize("kind", OTHERS)
def test_all_bits_of_other_formats(kind: str, tmp_path: Path) -> None:
    data, expected = OTHERS[kind]
    np.testing.assert_array_equal(samples_of(tmp_path, data), expected.ravel())


@pytest.mark.parametrize("white", [1023, 4095])
@pytest.mark.parametrize("kind", ["P2", "P3", "P5", "P6"])
def test_a_file_that_says_which_value_is_white(kind: str, white: int) -> None:
    levels = SHADES if kind in ("P2", "P5") else PICTURE
    data = netpbm(kind, np.rint(levels * (white / 255)), white)
    expected = levels if levels.ndim == 3 else np.repeat(levels[..., None], 3, axis=2)
    np.testing.assert_allclose(pixels(data), expected, atol=1)


def test_twelve_bits_packed_in_a_tiff() -> None:
    values = (SHADES.astype(np.uint16) * 16 + 8).reshape(-1, 2).astype(np.uint32)
    packed = values[:, 0] << 12 | values[:, 1]
    raw = np.stack([packed >> 16, packed >> 8 & 255, packed & 255], axis=1).astype(np.uint8)
    data = tiff(raw.reshape(48, 96), bits=12).replace((96).to_bytes(4, "little"), (64).to_bytes(4, "little"))
    np.testing.assert_allclose(pixels(data)[..., 0], SHADES, atol=1)


@pytest.mark.parametrize("kind", [*SAMPLES, *OTHERS])
def test_half_a_file_is_refused(kind: str) -> None:
    data = OTHERS[kind][0] if kind in OTHERS else tiff(SAMPLES[kind][0], **SAMPLES[kind][2])
    if kind == "JPEG 2000":
        data = data[:200]
    if kind not in OTHERS or kind == "uint32 TIFF":  # its directory stands at the end, and the pixels that are left lie
        cut = bytearray(data)
        at = int.from_bytes(data[4:8], "little")
        half = at // 2
        cut[half:at] = b""
        cut[4:8] = half.to_bytes(4, "little")
        for tag in range(int.from_bytes(data[at : at + 2], "little")):
            entry = half + 2 + 12 * tag
            width = {3: 2, 4: 4}[cut[entry + 2]] * int.from_bytes(cut[entry + 4 : entry + 8], "little")
            if width > 4:
                value = int.from_bytes(cut[entry + 8 : entry + 12], "little") - (at - half)
                cut[entry + 8 : entry + 12] = value.to_bytes(4, "little")
        data = bytes(cut)
    else:
        data = data[: len(data) // 2]
    for ranges in (None, SampleRanges.of({"uint16": (0, 4095)})):
        with pytest.raises(ImageError, match=r"truncated|damaged"):
            decode(data, ranges=ranges)

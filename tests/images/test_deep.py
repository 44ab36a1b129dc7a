"""Deep images: one range for all of a kind gives the levels of 8-bit images."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.data.images import encoded, netpbm, png, ppm, tiff
from tests.data.preparing import photo
from tests.images.decoding import PICTURE, SHADES, pixels, reason
from tl_kit.data.ranges import measure_ranges, range_in_use, range_note
from tl_kit.data.scan import scan
from tl_kit.images.decode import decode
from tl_kit.images.deep import SampleRanges, deep_kind


def write(root: Path, make: Callable[[np.ndarray], bytes], *, colour: bool, images: int = 4) -> Path:
    """Two classes of photos, as ``make`` saves their 8-bit levels."""
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        for number in range(images):
            levels = np.array(photo(64, 48, seed=ord(name) + 10 * number))
            shown = levels if colour else np.array(Image.fromarray(levels).convert("L"))
            (root / name / f"{number}.img").write_bytes(make(shown))
    return root


def saved(scale: float, kind: Any, write: Callable[[np.ndarray], bytes], offset: float = 0) -> Any:
    """A maker that multiplies levels, and rounds them for whole numbers."""

    def make(levels: np.ndarray) -> bytes:
        values = levels.astype(np.float64) * scale + offset
        return write((values if np.dtype(kind).kind == "f" else np.rint(values)).astype(kind))

    return make


def png_of(samples: np.ndarray) -> bytes:
    return png(samples.reshape(*samples.shape[:2], -1), colour_type=2 if samples.ndim == 3 else 0)


def png_with_alpha(samples: np.ndarray) -> bytes:
    alpha = np.full(samples.shape[:2], 4095, np.uint16)  # a converter that scales all channels alike
    return png(np.dstack([samples, alpha]), colour_type=6 if samples.ndim == 3 else 4)


FORMS: dict[str, tuple[Any, bool, bool]] = {  # a maker; whether it is for grey, and for colour
    "8 of 16 bits, PNG": (saved(1, np.uint16, png_of), True, True),
    "12 of 16 bits, PNG": (saved(4095 / 255, np.uint16, png_of), True, True),
    "12 of 16 bits, shifted": (saved(16, np.uint16, png_of), True, True),
    "10 of 16 bits, TIFF": (saved(1023 / 255, np.uint16, tiff), True, True),
    "14 of 16 bits, alpha as well": (saved(4095 / 255, np.uint16, png_with_alpha), True, True),
    "16 bits, PNG": (saved(257, np.uint16, png_of), True, True),
    "16 bits, shifted": (saved(256, np.uint16, png_of), True, True),
    "12 of 16 bits, PGM, PPM": (saved(4095 / 255, np.uint16, ppm), True, True),
    "int16": (saved(4095 / 255, np.int16, tiff), True, False),
    "int32 of 8 bits": (saved(1, np.int32, tiff), True, False),
    "int32 of 12 bits": (saved(4095 / 255, np.int32, tiff), True, False),
    "int32 of 31 bits": (saved(2**23, np.int32, tiff), True, False),
    "uint32": (saved(2**24, np.uint32, tiff), True, False),
    "float of 0..1": (saved(1 / 255, np.float32, tiff), True, False),
    "float of 0..255": (saved(1, np.float32, tiff), True, False),
    "float of 0..4095": (saved(4095 / 255, np.float32, tiff), True, False),
    "float of 0..65535": (saved(257, np.float32, tiff), True, False),
}
CASES = [
    (name, colour) for name, (_, grey, rgb) in FORMS.items() for colour in (False, True) if (rgb if colour else grey)
]


@pytest.mark.parametrize(("name", "colour"), CASES)
def test_the_levels_are_those_of_the_8_bit_photos(name: str, colour: bool, tmp_path: Path) -> None:
    write(tmp_path / "8", lambda levels: encoded(Image.fromarray(levels), "PNG"), colour=colour)
    write(tmp_path / "deep", FORMS[name][0], colour=colour)
    ranges = measure_ranges(scan(tmp_path / "deep").samples)
    assert ranges is not None
    assert measure_ranges(scan(tmp_path / "8").samples) is None
    for path in sorted((tmp_path / "deep").rglob("*.img")):
        plain = decode(tmp_path / "8" / path.relative_to(tmp_path / "deep"))
        np.testing.assert_allclose(np.asarray(decode(path, ranges=ranges)).astype(int), np.asarray(plain), atol=1)


def bounds(*values: np.ndarray, whole: bool = True) -> tuple[float, float]:
    return range_in_use(np.concatenate([value.ravel() for value in values]), whole=whole)


def spread(low: float, high: float, count: int = 50_000) -> np.ndarray:
    return np.linspace(low, high, count)


def test_odd_pixels_do_not_change_the_range() -> None:
    twelve = np.rint(spread(0, 4095))
    assert bounds(twelve) == (0, 4095)
    assert bounds(twelve, np.full(40, 65535)) == (0, 4095)  # hot
    assert bounds(twelve, np.rint(spread(5000, 65535, 40))) == (0, 4095)
    assert bounds(twelve, np.rint(spread(50_000, 65535, 400))) == (0, 4095)
    assert bounds(twelve, np.full(20_000, 65535)) == (0, 4095)  # the fill of a margin
    assert bounds(twelve, np.full(20_000, -32768)) == (0, 4095)
    assert bounds(twelve, np.full(5_000, -32768), np.full(5_000, -9999)) == (0, 4095)
    assert bounds(spread(0, 1), np.full(20_000, -3.4e38), whole=False) == (0, 1)
    assert bounds(spread(0, 1), np.full(20_000, -9999.0), whole=False) == (0, 1)


def test_values_far_from_0_are_stretched() -> None:
    low, high = bounds(np.rint(spread(30_000, 31_000)))
    assert (low, high) == (pytest.approx(30_000, abs=2), pytest.approx(31_000, abs=2))
    low, high = bounds(np.rint(spread(30_000, 31_000)), np.zeros(9_000))  # margins of 0
    assert (low, high) == (pytest.approx(30_000, abs=2), pytest.approx(31_000, abs=2))
    low, high = bounds(np.rint(spread(-1024, 3071)))  # Hounsfield
    assert (low, high) == (pytest.approx(-1024, abs=8), pytest.approx(3071, abs=8))
    low, high = bounds(spread(1e-6, 3e-6), whole=False)
    assert (low, high) == (pytest.approx(1e-6, rel=0.01), pytest.approx(3e-6, rel=0.01))


def test_values_that_fill_a_natural_range_are_not_stretched() -> None:
    assert bounds(np.rint(spread(100, 3000))) == (0, 4095)
    assert bounds(np.rint(spread(0, 20))) == (0, 255)  # as dark as 8-bit images would be
    assert bounds(np.rint(spread(20_000, 60_000))) == (0, 65535)
    assert bounds(spread(-0.015, 1.015), whole=False) == (0, 1)  # what resizing adds
    assert bounds(np.array([0, 65535] * 500)) == (0, 65535)  # masks
    sparse = np.concatenate([np.rint(spread(0, 3000, 100_000)), np.rint(spread(3000, 60_000, 500))])
    assert bounds(sparse) == (0, 65535)  # bright spots that begin where the others end
    assert bounds(np.zeros(1000)) == (0, 255)
    assert bounds(np.zeros(1000), whole=False) == (0, 1)


@pytest.mark.parametrize("values", [[7.0], [-5.0] * 9, [1e30, 1e30], [-3.4e38, 3.4e38]])
@pytest.mark.parametrize("whole", [True, False])
def test_there_always_is_a_range(values: list[float], whole: bool) -> None:
    low, high = range_in_use(np.array(values), whole=whole)
    assert np.isfinite([low, high]).all()
    assert low < high


@pytest.mark.parametrize("kind", ["uint16", "int32", "float32"])
def test_a_dark_class_stays_darker_than_a_bright_one(kind: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, level in {"dark": 400, "bright": 3600}.items():
        (tmp_path / name).mkdir()
        for number in range(4):
            values = rng.normal(level, 60, (40, 40)).clip(0, 4095)
            (tmp_path / name / f"{number}.tiff").write_bytes(tiff(np.rint(values).astype(kind)))
    ranges = measure_ranges(scan(tmp_path).samples)
    means = [np.asarray(decode(tmp_path / name / "0.tiff", ranges=ranges)).mean() for name in ("dark", "bright")]
    assert means == [pytest.approx(400 / 16, abs=2), pytest.approx(3600 / 16, abs=2)]


def test_hot_pixels_in_real_files(tmp_path: Path) -> None:
    def hot(levels: np.ndarray) -> bytes:
        samples = levels.astype(np.uint16) * 16
        samples[[1, 20, 40], [3, 50, 7]] = 65535
        return png_of(samples)

    ranges = measure_ranges(scan(write(tmp_path, hot, colour=False)).samples)
    assert ranges == SampleRanges.of({"uint16": (0, 4095)})


def test_the_range_knows_no_names_and_no_order(tmp_path: Path) -> None:
    first = write(tmp_path / "one", FORMS["int16"][0], colour=False)
    second = write(tmp_path / "two", saved(7.3, np.int16, tiff, offset=-500), colour=False)
    for number, path in enumerate(sorted(second.rglob("*.img"), reverse=True)):
        path.rename(path.with_name(f"{number * 37 % 11}-x.img"))
    third = write(tmp_path / "three", saved(7.3, np.int16, tiff, offset=-500), colour=False)
    one, two, three = (measure_ranges(scan(path).samples) for path in (first, second, third))
    assert two == three != one
    assert measure_ranges(scan(second).samples[::-1]) == two


def test_kinds_side_by_side(tmp_path: Path) -> None:
    write(tmp_path, lambda levels: encoded(Image.fromarray(levels), "PNG"), colour=True)
    for number, name in enumerate(("12 of 16 bits, PNG", "float of 0..1", "int16")):
        (tmp_path / "a" / f"deep-{number}.img").write_bytes(FORMS[name][0](SHADES))
    (tmp_path / "a" / "stated.pgm").write_bytes(netpbm("P5", np.rint(SHADES * (1023 / 255)), 1023))
    manifest = scan(tmp_path)
    ranges = measure_ranges(manifest.samples)
    assert ranges is not None
    kinds = {"float32": (0, 1), "int16": (0, 4095), "scaled": (0, 65535), "uint16": (0, 4095)}
    assert ranges == SampleRanges.of(kinds)
    for file in ("deep-0.img", "deep-1.img", "deep-2.img", "stated.pgm"):
        found = np.asarray(decode(tmp_path / "a" / file, ranges=ranges))[..., 0].astype(int)
        np.testing.assert_allclose(found, SHADES, atol=1)
    plain = tmp_path / "b" / "1.img"
    np.testing.assert_array_equal(np.asarray(decode(plain, ranges=ranges)), np.asarray(decode(plain)))


def test_an_integer_type_that_was_not_there_is_read_as_another() -> None:
    ranges = SampleRanges.of({"uint16": (0, 4095), "float32": (0, 1)})
    values = tiff(SHADES.astype(np.int32) * 16)
    np.testing.assert_allclose(np.asarray(decode(values, ranges=ranges))[..., 0].astype(int), SHADES, atol=1)
    assert SampleRanges.of({"float32": (0, 1)}).get("uint16") is None
    assert SampleRanges.of({"uint16": (0, 4095)}).get("float32") is None
    assert SampleRanges.of({"scaled": (0, 65535)}).get("uint16") is None


def test_nan_and_infinity(tmp_path: Path) -> None:
    def holed(levels: np.ndarray) -> bytes:
        values = levels.astype(np.float32) / 255
        values[:4], values[4:8], values[8:12] = np.nan, np.inf, -np.inf
        return tiff(values)

    root = write(tmp_path, holed, colour=False)
    (root / "a" / "none.img").write_bytes(tiff(np.full((20, 20), np.nan, np.float32)))
    ranges = measure_ranges(scan(root).samples)
    assert ranges == SampleRanges.of({"float32": (0, 1)})
    found = np.asarray(decode(root / "a" / "0.img", ranges=ranges))[..., 0]
    assert [set(found[row]) for row in (0, 4, 8)] == [{0}, {255}, {0}]
    assert (np.asarray(decode(root / "a" / "none.img", ranges=ranges)) == 0).all()


def test_transparency_of_deep_images() -> None:
    ranges = SampleRanges.of({"uint16": (0, 4095)})
    shades = SHADES.astype(np.uint16) * 16
    key = int(shades[3, 4])
    data = png(shades[..., None], colour_type=0, transparency=key.to_bytes(2, "big"))
    expected = np.where(shades == key, 255, SHADES)
    np.testing.assert_array_equal(np.asarray(decode(data, ranges=ranges))[..., 0], expected)
    colours = PICTURE.astype(np.uint16) * 16
    colours[5, 6] = colours[3, 4] + np.uint16(1)  # the same high byte, another colour
    data = png(colours, colour_type=2, transparency=colours[3, 4].astype(">u2").tobytes())
    found = np.asarray(decode(data, ranges=ranges))
    assert found[3, 4].tolist() == [255] * 3
    assert found[5, 6].tolist() == PICTURE[3, 4].tolist()
    half = np.dstack([colours, np.full(SHADES.shape, 32768, np.uint16)])
    expected = PICTURE * 0.5 + 127.5
    found = np.asarray(decode(png(half, colour_type=6), ranges=ranges)).astype(int)
    np.testing.assert_allclose(np.delete(found, 5, axis=0), np.delete(expected, 5, axis=0), atol=2)


def test_what_cannot_be_seen_does_not_count(tmp_path: Path) -> None:
    def clear(levels: np.ndarray) -> bytes:
        colour = levels.astype(np.uint16) * 16
        alpha = np.full(colour.shape[:2], 65535, np.uint16)
        colour[:10], alpha[:10] = np.random.default_rng(0).integers(0, 65536, colour[:10].shape), 0
        return png(np.dstack([colour, alpha]), colour_type=6)

    assert measure_ranges(scan(write(tmp_path, clear, colour=True)).samples) == SampleRanges.of({"uint16": (0, 4095)})


@pytest.mark.parametrize("order", ["<"])
def test_0_may_be_white(order: str) -> None:
    data = tiff((255 - SHADES).astype(np.uint16) * 257, photometric=0, order=order)
    np.testing.assert_array_equal(pixels(data)[..., 0], SHADES)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("planar", [False, True])
def test_orientation(orientation: int, planar: bool) -> None:
    from tests.data.images import STORED

    stored = np.ascontiguousarray(STORED[orientation](PICTURE)).astype(np.uint16) * 16
    data = tiff(stored, planar=planar, tags={274: (orientation,)}).replace(b"\x12\x01\x04\0", b"\x12\x01\x03\0")
    found = decode(data, ranges=SampleRanges.of({"uint16": (0, 4095)}))
    np.testing.assert_array_equal(np.asarray(found), PICTURE)


def test_pillow_images_are_not_changed() -> None:
    ranges = SampleRanges.of({"uint16": (0, 4095), "int32": (0, 4095), "float32": (0, 1)})
    shades = SHADES.astype(np.uint16) * 16
    for image in (
        Image.fromarray(shades),
        Image.fromarray(shades.astype(np.int32)),
        Image.fromarray((SHADES / 255).astype(np.float32)),
        Image.open(io.BytesIO(png(shades[..., None], colour_type=0))),
    ):
        before = image.copy()
        np.testing.assert_allclose(np.asarray(decode(image, ranges=ranges))[..., 0].astype(int), SHADES, atol=1)
        assert np.array_equal(np.asarray(image), np.asarray(before))
        assert image.mode == before.mode
    assert deep_kind(Image.fromarray(PICTURE)) is None


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_a_colour_image_that_pillow_has_opened(kind: str, loaded: bool, tmp_path: Path) -> None:
    path, ranges = tmp_path / "image", SampleRanges.of({"uint16": (0, 4095)})
    samples = PICTURE.astype(np.uint16) * 16
    path.write_bytes(png(samples, colour_type=2) if kind == "png" else tiff(samples))
    with Image.open(path) as image:
        if loaded:
            image.load()
        found = np.asarray(decode(image, ranges=ranges))
        np.testing.assert_array_equal(found, PICTURE >> 4 if loaded else PICTURE)
        np.testing.assert_array_equal(np.asarray(image), PICTURE >> 4)


def test_without_a_range_the_high_byte_is_kept() -> None:
    shades = np.random.default_rng(2).integers(0, 65536, (20, 20)).astype(np.uint16)
    for data in (png(shades[..., None], colour_type=0), tiff(shades), tiff(np.dstack([shades] * 3), planar=True)):
        for ranges in (None, SampleRanges.of({"uint16": (0, 65535)}), SampleRanges.of({"float32": (0, 1)})):
            np.testing.assert_array_equal(np.asarray(decode(data, ranges=ranges))[..., 0], shades >> 8)


def test_a_note_says_it_in_one_line(tmp_path: Path) -> None:
    from dataclasses import replace

    root = write(tmp_path, FORMS["12 of 16 bits, PNG"][0], colour=False)
    manifest = scan(root)
    assert range_note(manifest) == (
        "8 images have more than 8 bits a sample: they are read, uint16 (8) over 0..65535, since no training image is "
        "of that kind"
    )
    manifest = replace(manifest, ranges=measure_ranges(manifest.samples))
    assert range_note(manifest) == (
        "8 images have more than 8 bits a sample: their values lie in 0..4095 and are read over that range"
    )
    (root / "a" / "0.img").write_bytes(FORMS["float of 0..1"][0](SHADES))
    manifest = scan(root)
    manifest = replace(manifest, ranges=measure_ranges(manifest.samples))
    assert range_note(manifest) == (
        "8 images have more than 8 bits a sample: they are read, float32 (1) over 0..1, uint16 (7) over 0..4095"
    )


def test_damaged_deep_files_do_not_stop_the_look(tmp_path: Path) -> None:
    root = write(tmp_path, FORMS["12 of 16 bits, PNG"][0], colour=False)
    whole = (root / "a" / "0.img").read_bytes()
    (root / "a" / "cut.img").write_bytes(whole[: len(whole) // 2])
    assert measure_ranges(scan(root).samples) == SampleRanges.of({"uint16": (0, 4095)})
    assert "truncated" in reason(root / "a" / "cut.img")

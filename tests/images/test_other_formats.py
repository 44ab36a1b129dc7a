"""Sound files that cannot be used are told what they are and what to do; only what is damaged is called so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.images import encoded, tiff, write_classes
from tests.images.decoding import reason
from tl_kit.diagnosis.examine import examine

GREY = np.arange(37 * 45, dtype=np.uint16).reshape(37, 45)
RGB = np.dstack([GREY] * 3)
JPEG = encoded(Image.fromarray((RGB % 256).astype(np.uint8)), "JPEG")
FRAME = JPEG.index(b"\xff\xc0")
J2K = encoded(Image.fromarray((RGB % 256).astype(np.uint8)), "JPEG2000", no_jp2=True)


def bands(count: int, kind: str = "u2") -> np.ndarray:
    return np.dstack([GREY] * count).astype(kind)


TIFFS: dict[str, tuple[bytes, tuple[str, ...]]] = {
    "13 bands": (tiff(bands(13)), ("TIFF of 13 bands, uint16", "choose three bands, or one")),
    "13 bands, bytes": (tiff(bands(13, "u1"), order=">"), ("13 bands, uint8",)),
    "13 bands, floats": (tiff(bands(13, "f4"), planar=True, photometric=1), ("13 bands, float32",)),
    "5 bands": (tiff(bands(5), extra=(0, 0)), ("5 bands, uint16", "choose three bands")),
    "2 bands": (tiff(bands(2), photometric=1), ("2 bands, uint16", "choose")),
    "3 bands, not RGB": (tiff(RGB, photometric=1), ("3 bands that are not marked as RGB, uint16", "save them as RGB")),
    "float RGB": (tiff(RGB.astype("f4")), ("TIFF of float32 RGB", "save it as RGB of 8 or 16 bits")),
    "float RGB, planes": (tiff(RGB.astype("f4"), planar=True), ("TIFF of float32 RGB", "save it as RGB")),
    "int16 RGB": (tiff(RGB.astype("i2")), ("TIFF of int16 RGB", "save it as RGB")),
    "uint32 RGB": (tiff(RGB.astype("u4")), ("TIFF of uint32 RGB",)),
    "float64": (tiff(GREY.astype("f8")), ("TIFF of float64 grey", "save it as grey of 8 or 16 bits")),
    "float16": (tiff(GREY.astype("f2")), ("TIFF of float16 grey",)),
    "complex": (tiff(GREY.astype("c8")), ("TIFF of complex64 grey",)),
    "uint64": (tiff(GREY.astype("u8")), ("TIFF of uint64 grey",)),
    "uint32, big-endian": (tiff(GREY.astype("u4"), order=">"), ("TIFF of uint32 grey in big-endian order",)),
    "10 bits": (tiff(GREY, bits=10), ("TIFF of uint10 grey",)),
    "CIE Lab": (tiff(RGB.astype("u1"), photometric=8), ("CIE Lab", "save it as RGB")),
    "CIE Lab, deep": (tiff(RGB, photometric=8), ("TIFF of uint16 CIE Lab", "save it as RGB")),
    "YCbCr, deep": (tiff(RGB, photometric=6), ("TIFF of uint16 YCbCr", "save it as RGB")),
    "CMYK, deep, planes": (tiff(bands(4), photometric=5, planar=True), ("TIFF of uint16 CMYK in separate planes",)),
    "CMYK of floats": (tiff(bands(4, "f4"), photometric=5), ("TIFF of float32 CMYK", "save it as RGB")),
    "camera raw": (tiff(GREY, photometric=32803), ("camera raw", "develop it")),
    "preview of a camera raw": (tiff(RGB.astype("u1"), tags={254: (1,), 330: (8,)}), ("camera raw", "develop it")),
    "LERC": (tiff(GREY, tags={259: (34887,)}), ("compressed by LERC", "save it with deflate")),
    "JPEG XL inside": (tiff(GREY, tags={259: (50002,)}), ("compressed by JPEG XL", "save it with deflate")),
    "another method": (tiff(GREY, tags={259: (12345,)}), ("compressed by method 12345", "save it with deflate")),
    "zstd": (tiff(GREY, tags={259: (50000,)}), ("compressed by zstd", "save it with deflate")),
}
OTHERS: dict[str, tuple[bytes, tuple[str, ...]]] = {
    "DICOM": (bytes(128) + b"DICM" + bytes(300), ("DICOM", "save its pictures as PNG or TIFF")),
    "NIfTI": (b"\x5c\x01\0\0" + bytes(340) + b"n+1\0" + bytes(100), ("NIfTI", "save its pictures")),
    "NumPy": (b"\x93NUMPY\x01\0v\0{'descr': '<u2'}", ("NumPy", "save its pictures")),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(500), ("HDF5", "save its pictures")),
    "FITS": (b"SIMPLE  =                    T", ("FITS", "save its pictures")),
    "OpenEXR": (b"v/1\x01\x02\0\0\0", ("OpenEXR", "save its pictures")),
    "Radiance": (b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n", ("Radiance HDR", "save its pictures")),
    "MATLAB": (b"MATLAB 5.0 MAT-file", ("MATLAB",)),
    "NRRD": (b"NRRD0004\ntype: short\n", ("NRRD",)),
    "HEIC": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100), ("HEIC", "convert it")),
    "HEIF, by another brand": (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(100), ("HEIF", "convert it")),
    "JPEG XL": (b"\xff\x0a\xfa\x1f", ("JPEG XL", "convert it")),
    "CR3": (b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom" + bytes(100), ("camera raw", "develop it")),
    "RAF": (b"FUJIFILMCCD-RAW 0201", ("camera raw", "develop it")),
    "video": (b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2" + bytes(100), ("video", "frames")),
    "zip": (b"PK\x03\x04\x14\0", ("zip", "unpack it")),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", ("Git LFS", "git lfs pull")),
    "colour PFM": (b"PF\n4 4\n-1.0\n" + bytes(192), ("PFM", "save its pictures")),
    "JPEG of 12 bits": (
        JPEG[: FRAME + 4] + b"\x0c" + JPEG[FRAME + 5 :],
        ("JPEG of 12 bits a sample", "save it as PNG"),
    ),
    "lossless JPEG": (JPEG[: FRAME + 1] + b"\xc3" + JPEG[FRAME + 2 :], ("lossless JPEG", "save it as PNG")),
    "JPEG-LS": (JPEG[: FRAME + 1] + b"\xf7" + JPEG[FRAME + 2 :], ("JPEG-LS", "save it as PNG")),
    "JPEG 2000 of 7 components": (J2K[:40] + b"\0\x07" + J2K[42:], ("JPEG 2000 of 7 components", "choose three")),
}
KINDS = TIFFS | OTHERS


@pytest.mark.parametrize("kind", KINDS)
def test_what_it_is_and_what_to_do(kind: str) -> None:
    data, words = KINDS[kind]
    text = reason(data)
    assert all(word in text for word in words), text
    assert len(text) <= 120
    assert "damaged" not in text or kind == "zstd"  # of a codec that is not built in, either may be the case


@pytest.mark.parametrize("kind", ["13 bands", "float RGB", "int16 RGB"])
def test_the_reason_is_found_in_a_file(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    path.write_bytes(KINDS[kind][0])
    assert KINDS[kind][1][0] in reason(path)


@pytest.mark.parametrize(
    "data",
    [
        tiff(bands(13))[:3000],
        tiff(bands(13), tags={273: (10**8,)}),
        tiff(RGB.astype("f4"), tags={256: (0,)}),
        tiff(GREY)[:1000],
        JPEG[:300],
        JPEG[:FRAME],
    ],
    ids=["cut", "beyond the end", "no width", "cut grey", "cut JPEG", "cut before the frame"],
)
def test_damaged_files_are_called_so(data: bytes) -> None:
    text = reason(data)
    assert text.startswith("damaged: ") or text == "truncated"


def test_the_doctor_does_not_advise_to_remove_sound_files(tmp_path: Path) -> None:
    write_classes(tmp_path, {"a": 6, "b": 6})
    (tmp_path / "a" / "bands.tif").write_bytes(TIFFS["13 bands"][0])
    (finding,) = [item for item in examine(tmp_path).findings if item.code == "excluded"]
    assert "a TIFF of 13 bands" in finding.message
    assert "what the reason says" in finding.remedy


def test_the_doctor_says_that_of_several_pages_the_first_is_taken(tmp_path: Path) -> None:
    write_classes(tmp_path, {"a": 6, "b": 6})
    pages = [Image.fromarray(GREY + np.uint16(number)) for number in range(3)]
    (tmp_path / "a" / "stack.tif").write_bytes(encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:]))
    (tmp_path / "a" / "one.tif").write_bytes(encoded(pages[1], "TIFF"))
    frames = [Image.new("RGB", (40, 40), (80 * number, 0, 0)) for number in range(3)]
    (tmp_path / "a" / "run.gif").write_bytes(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    (tmp_path / "a" / "still.gif").write_bytes(encoded(frames[0], "GIF"))
    (finding,) = [item for item in examine(tmp_path).findings if item.code == "several-pages"]
    assert finding.severity == "info"
    assert sorted(path.name for path in finding.paths) == ["run.gif", "stack.tif"]

"""Undamaged files that cannot be used as images: the format of each and the remedy, in one short line."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import Any

from PIL import Image, TiffImagePlugin

from tl_kit.file_kinds import kind_of
from tl_kit.images.planes import is_planar, tags_of

__all__ = ["PREFIX", "foreign", "misread", "undecodable", "unsupported"]

PREFIX = 352
"""So many bytes of a file are enough to tell what it is."""

_CONVERT, _EXPORT = "convert it", "save its pictures as PNG or TIFF, of 8 or 16 bits"
_DEVELOP = "develop it, and save it as JPEG, PNG or TIFF"
_MAGIC = (
    (4, b"ftyphei", "HEIC", _CONVERT),
    (4, b"ftyphev", "HEIC", _CONVERT),
    (4, b"ftypmif1", "HEIF", _CONVERT),
    (4, b"ftypmsf1", "HEIF", _CONVERT),
    (4, b"ftypcrx", "camera raw CR3", _DEVELOP),
    (4, b"ftypqt", "a video", "save its frames as images"),
    (4, b"ftypisom", "a video", "save its frames as images"),
    (4, b"ftypmp4", "a video", "save its frames as images"),
    (0, b"\x1aE\xdf\xa3", "a video", "save its frames as images"),
    (8, b"AVI LIST", "a video", "save its frames as images"),
    (0, b"FUJIFILMCCD-RAW", "camera raw RAF", _DEVELOP),
    (0, b"IIU\0", "camera raw RW2", _DEVELOP),
    (0, b"IIRO", "camera raw ORF", _DEVELOP),
    (0, b"IIRS", "camera raw ORF", _DEVELOP),
    (0, b"8BPS", "Photoshop", _CONVERT),
    (0, b"%!PS", "PostScript", _CONVERT),
    (0, b"\xc5\xd0\xd3\xc6", "PostScript", _CONVERT),
    (0, b"%PDF", "PDF", _CONVERT),
    (0, b"<svg", "SVG", _CONVERT),
    (0, b"\xff\x0a", "JPEG XL", _CONVERT),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL", _CONVERT),
    (0, b"II\xbc", "JPEG XR", _CONVERT),
    (0, b"DDS ", "DDS", _CONVERT),
    (0, b"qoif", "QOI", _CONVERT),
    (0, b"P7\n", "PAM", _CONVERT),
    (0, b"PF\n", "colour PFM", _EXPORT),
    (0, b"v/1\x01", "OpenEXR", _EXPORT),
    (0, b"#?RADIANCE", "Radiance HDR", _EXPORT),
    (0, b"#?RGBE", "Radiance HDR", _EXPORT),
    (128, b"DICM", "DICOM", _EXPORT),
    (0, b"MATLAB 5.0", "MATLAB", _EXPORT),
    (0, b"CDF\x01", "netCDF", _EXPORT),
    (0, b"CDF\x02", "netCDF", _EXPORT),
    (0, b"SIMPLE  =", "FITS", _EXPORT),
    (344, b"n+1\0", "NIfTI", _EXPORT),
    (344, b"ni1\0", "NIfTI", _EXPORT),
    (0, b"NRRD000", "NRRD", _EXPORT),
    (0, b"ObjectType", "MetaImage", _EXPORT),
    (0, b"ZISRAWFILE", "CZI", _EXPORT),
)
_HOLDERS = {
    "git-lfs": ("a Git LFS pointer", "fetch the image itself with git lfs pull"),
    "numpy": ("a NumPy array", _EXPORT),
    "hdf5": ("HDF5", _EXPORT),
    "gzip": ("gzip", "unpack it"),
    **{kind: (f"a {kind} archive", "unpack it") for kind in ("zip", "7z", "rar", "tar")},
}
_TYPES = {1: "uint", 2: "int", 3: "float", 5: "complex int", 6: "complex"}
_COLOURS = {
    2: "RGB",
    3: "palette",
    5: "CMYK",
    6: "YCbCr",
    8: "CIE Lab",
    9: "ICC Lab",
    10: "ITU Lab",
    32844: "LogL",
    32845: "LogLuv",
}
_RAW = (32803, 34892)
_COMPRESSIONS = {33003: "JPEG 2000", 33005: "JPEG 2000", 34712: "JPEG 2000", 34887: "LERC", 50002: "JPEG XL"}
_RARE = {34676: "SGI log", 34677: "SGI log", 34925: "LZMA", 50000: "zstd", 50001: "WebP"}
_FRAME = re.compile(rb"\xff([\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf\xf7])..(.)....(.)", re.DOTALL)


def foreign(data: bytes) -> str | None:
    """The reason why a file that begins like no image of ours cannot be read, if it is known what it is."""
    for offset, magic, name, advice in _MAGIC:
        if data.startswith(magic, offset) and not (name == "HEIF" and b"avif" in data[16:64]):
            return f"not an image that can be read ({name}): {advice}"
    name, advice = _HOLDERS.get(kind_of(data) or "", ("", ""))
    return f"not an image that can be read ({name}): {advice}" if name else None


def misread(image: Image.Image) -> str | None:
    """The reason why an image that Pillow opens cannot be used: it would give another picture than the file holds.

    Of a camera raw file (DNG, NEF, ARW) that is a small preview, and of separate planes of 16-bit CMYK it is noise.
    """
    tags = tags_of(image)
    if tags.get(254, 0) == 1 and 330 in tags:
        return f"not an image that can be read (camera raw): {_DEVELOP}"
    if is_planar(image) and image.mode not in ("RGB", "RGBA"):
        return f"a TIFF of uint16 {image.mode} in separate planes, which cannot be read: save it as RGB of 8 or 16 bits"
    return None


def undecodable(data: bytes) -> str | None:
    """The reason why the pixels of a file cannot be decoded though its header can be read; None where it is damaged."""
    if data.startswith(b"\xff\xd8"):
        return unsupported("JPEG", data)
    if data[:2] not in (b"II", b"MM"):
        return None
    try:
        how = _RARE.get(int(_tiff_tags(data).get(259, 1)))
    except Exception:  # noqa: BLE001 - what cannot be described is damaged
        return None
    return (
        how and f"a TIFF compressed by {how}, which is damaged or which this Pillow cannot read: save it with deflate"
    )


def unsupported(name: str, data: bytes) -> str | None:
    """The reason why an undamaged file of Pillow's format ``name`` cannot be read; None where it may be damaged."""
    try:
        if name == "TIFF":
            return _tiff(data)
        if name == "JPEG":
            return _jpeg(data)
        return _jpeg2000(data) if name == "JPEG2000" else None
    except Exception:  # noqa: BLE001 - what cannot be described is damaged
        return None


def _tiff_tags(data: bytes) -> Any:
    """The tags of the first page."""
    tags: Any = TiffImagePlugin.ImageFileDirectory_v2(data[: 16 if b"\x2b" in data[2:4] else 8])
    stream = io.BytesIO(data)
    stream.seek(tags.next)
    tags.load(stream)
    return tags


def _tiff(data: bytes) -> str | None:
    tags = _tiff_tags(data)
    width, height = int(tags[256]), int(tags[257])
    places = tags.get(273) or tags[324]
    if min(width, height) < 1 or max(places) >= len(data):
        return None
    compression = int(tags.get(259, 1))
    if compression not in TiffImagePlugin.COMPRESSION_INFO:
        how = _COMPRESSIONS.get(compression, f"method {compression}")
        return f"a TIFF compressed by {how}, which cannot be read: save it with deflate (zip), or uncompressed"
    return _tiff_samples(tags)


def _tiff_samples(tags: Mapping[int, Any]) -> str | None:
    """The reason, from the tags of a TIFF whose samples lie where they should."""
    bands, colours = int(tags.get(277, 1)), int(tags.get(262, 1))
    bits, forms = _all(tags.get(258, 1)), _all(tags.get(339, 1))
    if not all(isinstance(value, int) for value in (*bits, *forms)):  # damaged tags
        return None
    if colours in _RAW:
        return f"not an image that can be read (camera raw): {_DEVELOP}"
    if len(set(bits)) > 1 or len(set(forms)) > 1:
        return f"a TIFF of {bands} bands of different types: choose three bands, or one, of one type"
    prefix, extra = getattr(tags, "prefix", b"II"), _all(tags.get(338, ()))
    key = (prefix, colours, forms[:1], int(tags.get(266, 1)), bits[:1] * bands, extra)
    if key in TiffImagePlugin.OPEN_INFO:
        return None
    kind = f"{_TYPES.get(forms[0], 'samples of ')}{bits[0]}"
    if bands not in (1, 3, 4) or (colours in (0, 1) and bands > 1):
        marked = " that are not marked as RGB" if bands == 3 else ""
        advice = "choose three bands, or one, and save them as RGB or grey"
        return f"a TIFF of {bands} bands{marked}, {kind}: {advice if bands != 3 else 'save them as RGB'}"
    what = _COLOURS.get(colours, "grey" if bands == 1 else f"{bands} bands")
    order = " in big-endian order" if (b"II", *key[1:]) in TiffImagePlugin.OPEN_INFO else ""
    return f"a TIFF of {kind} {what}{order}, which cannot be read: save it as {_as(bands)} of 8 or 16 bits"


def _as(bands: int) -> str:
    return "grey" if bands == 1 else "RGB"


def _all(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, tuple) else (value,)


def _jpeg(data: bytes) -> str | None:
    found = _FRAME.search(data)
    if found is None:
        return None
    frame, bits, bands = found[1][0], found[2][0], found[3][0]
    if frame == 0xF7:
        return "a JPEG-LS, which cannot be read: save it as PNG"
    if frame in (0xC3, 0xC7, 0xCB, 0xCF):
        return "a lossless JPEG, which cannot be read: save it as PNG"
    if bits in (10, 12, 16):
        return f"a JPEG of {bits} bits a sample, which cannot be read: save it as PNG of 16 bits"
    if bands == 2 or 4 < bands < 32:
        return f"a JPEG of {bands} components, which cannot be read: save it as RGB or grey"
    return None


def _jpeg2000(data: bytes) -> str | None:
    at = data.find(b"\xff\x4f\xff\x51")
    bands = int.from_bytes(data[at + 40 : at + 42], "big") if at >= 0 else 0
    return (
        f"a JPEG 2000 of {bands} components: choose three, or one, and save them as RGB or grey" if bands > 4 else None
    )

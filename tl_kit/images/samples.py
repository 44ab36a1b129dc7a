"""Samples of deep images with all of their bits: Pillow itself often keeps only the high byte."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from tl_kit.images.deep import BYTES, GREY_ALPHA, WHITE, deep_kind, first_of, raw_arguments
from tl_kit.images.planes import is_planar, plane_files, tags_of

__all__ = ["Samples", "file_of", "load_samples", "reads_high_byte"]

# libtiff gives samples in the order of this machine's bytes; of these modes Pillow expects them in the file's.
_NATIVE = {"I;16BS": "I;16NS", "I;32BS": "I;32NS", "F;32BF": "F;32NF", "I;16S": "I;16NS", "I;32S": "I;32NS"}


@dataclass(frozen=True)
class Samples:
    """Of one image: ``colour`` (h, w) or (h, w, 3), ``alpha`` (h, w) in 0..65535, where it is ``clear`` (h, w).

    ``inverted``: 0 is white.
    """

    kind: str
    colour: NDArray[Any]
    alpha: NDArray[np.uint16] | None = None
    clear: NDArray[np.bool_] | None = None
    inverted: bool = False

    def opaque(self) -> NDArray[Any]:
        """All samples (n,) that are not transparent."""
        hidden = self.clear if self.alpha is None else self.alpha == 0
        return self.colour.ravel() if hidden is None or hidden.all() else self.colour[~hidden].ravel()


def load_samples(image: Image.Image, kind: str, data: bytes | None) -> Samples:
    """The samples of an opened image, which is loaded by it; ``data`` are the bytes of its file, where it has one.

    Raises what Pillow raises for damaged files.
    """
    raw, *_ = raw_arguments(image)
    if image.mode == "F" or image.mode.startswith("I"):
        return _grey(image, kind)
    assert data is not None
    assert isinstance(image, ImageFile.ImageFile)
    if image.format == "PPM":
        return Samples(kind, _netpbm(data, image.size))
    if is_planar(image):
        return _planar(image, kind, data)
    if raw == GREY_ALPHA:
        high = _loaded(image, _with_raw(image, "RGBA"))  # four bytes: high and low of the shade, high and low of alpha
        pairs: NDArray[np.uint16] = np.asarray(high).copy().view(">u2").astype(np.uint16)
        return Samples(kind, pairs[..., 0], alpha=pairs[..., 1])
    return _colour(image, raw, kind, data)


def file_of(image: Image.Image) -> bytes | None:
    """The file of a Pillow image that a caller has opened and not loaded yet, where loading it would drop bits.

    None for any other: what is loaded as RGB has 8 bits left.
    """
    stream = getattr(image, "fp", None)
    waiting = bool(getattr(image, "tile", None)) and image.mode in ("RGB", "RGBA") and image.tell() == 0
    if stream is None or not waiting or deep_kind(image) is None:
        return None
    at = stream.tell()
    try:
        stream.seek(0)
        return bytes(stream.read())
    finally:
        stream.seek(at)


def reads_high_byte(image: Image.Image) -> bool:
    """True where an opened image is a deep one of which Pillow itself reads the high byte, as RGB."""
    raw = raw_arguments(image)[0]
    return not is_planar(image) and (raw in BYTES or raw == GREY_ALPHA)


def _grey(image: Image.Image, kind: str) -> Samples:
    if isinstance(image, ImageFile.ImageFile) and image.tile and image.tile[0].codec_name == "libtiff":
        raw = raw_arguments(image)[0]
        image.tile = _with_raw(image, _NATIVE.get(raw, raw))
    image.load()
    values, key = np.asarray(image), image.info.get("transparency")
    if kind == "uint32":
        values = values.view(np.uint32) if values.dtype == np.int32 else values
    elif kind in ("uint16", "scaled"):
        values = np.clip(values, 0, WHITE).astype(np.uint16)
    elif kind == "int16":
        values = values.astype(np.int16)
    clear = values == key if isinstance(key, int) else None
    if kind == "scaled" and image.format == "TIFF":
        values = values << 4 | values >> 8
    return Samples(kind, values, clear=clear, inverted=tags_of(image).get(262) == 0)


def _colour(image: ImageFile.ImageFile, raw: str, kind: str, data: bytes) -> Samples:
    first, second = BYTES[raw]
    again: ImageFile.ImageFile = Image.OPEN[str(image.format)][0](io.BytesIO(data), "")
    again.tile = _with_raw(again, second)
    key = image.info.get("transparency")
    high, low = _loaded(image, _with_raw(image, first)), _loaded(again, again.tile)
    wide: NDArray[np.uint16] = np.asarray(high).astype(np.uint16)
    wide <<= np.uint16(8)
    wide |= np.asarray(low)
    colour, alpha = wide[..., :3], wide[..., 3] if wide.shape[2] == 4 else None
    if raw.startswith("RGBa") and alpha is not None:
        colour = _unmultiplied(colour, alpha)
    clear = (colour == np.array(key)).all(axis=2) if isinstance(key, tuple) and len(key) == 3 else None
    return Samples(kind, colour, alpha=alpha, clear=clear)


def _planar(image: ImageFile.ImageFile, kind: str, data: bytes) -> Samples:
    bands = []
    for file in plane_files(image, data):
        band = Image.OPEN["TIFF"][0](io.BytesIO(file), "")
        band.load()
        bands.append(np.asarray(band).astype(np.uint16))
    image.tile = []
    colour, alpha = np.stack(bands[:3], axis=2), bands[3] if len(bands) == 4 else None
    if alpha is not None and first_of(tags_of(image).get(338)) == 1:
        colour = _unmultiplied(colour, alpha)
    return Samples(kind, colour, alpha=alpha)


def _unmultiplied(colour: NDArray[np.uint16], alpha: NDArray[np.uint16]) -> NDArray[np.uint16]:
    scale = WHITE / np.maximum(alpha, 1).astype(np.float32)
    found = np.empty_like(colour)
    for band in range(colour.shape[2]):
        found[..., band] = np.minimum(colour[..., band] * scale, WHITE)
    return found


def _netpbm(data: bytes, size: tuple[int, int]) -> NDArray[np.uint16]:
    """(h, w, 3) of a PPM: read as a PGM of three times the width, of which Pillow keeps all bits."""
    opened = Image.OPEN["PPM"][0](io.BytesIO(data), "")
    tile = opened.tile[0]
    opened._mode, opened._size = "I", (3 * size[0], size[1])
    white = raw_arguments(opened)[-1]
    args: Any = ("L", white)
    codec = tile.codec_name
    if codec == "ppm" and white == WHITE:
        codec, args = "raw", "I;16B"
    opened.tile = [tile._replace(codec_name=codec, extents=(0, 0, *opened.size), args=args)]
    opened.load()
    return np.asarray(opened).astype(np.uint16).reshape(size[1], size[0], 3)


def _with_raw(image: ImageFile.ImageFile, raw: str) -> list[Any]:
    """The image's tiles, unpacked in another way."""
    return [t._replace(args=(raw, *t.args[1:]) if isinstance(t.args, tuple) else raw) for t in image.tile]


def _loaded(image: ImageFile.ImageFile, tiles: list[Any]) -> Image.Image:
    image.tile = tiles
    image.load()
    return image

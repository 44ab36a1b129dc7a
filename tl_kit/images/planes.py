"""Planar TIFFs of 16 bits: Pillow reads the planes of one as if they held bytes, so each becomes a grey TIFF."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from PIL import Image

from tl_kit.errors import ImageError

__all__ = ["is_planar", "plane_files", "tags_of"]

_BITS, _PHOTOMETRIC, _BANDS, _PLANAR, _FORMAT = 258, 262, 277, 284, 339
_PLACES = (273, 279, 324, 325)  # offsets and byte counts: of strips, of tiles
_KEPT = (256, 257, 259, 266, 278, 317, 322, 323)  # size, compression, bit order, rows a strip, predictor, tile


def tags_of(image: Image.Image) -> Mapping[int, Any]:
    """A TIFF's tags by number; empty for other formats."""
    return getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}


def is_planar(image: Image.Image) -> bool:
    """True for a TIFF of several planes with 16 bits a sample."""
    tags = tags_of(image)
    bits = tags.get(_BITS, 1)
    return tags.get(_PLANAR) == 2 and isinstance(bits, tuple) and len(bits) > 1 and set(bits) == {16}


def plane_files(image: Image.Image, data: bytes) -> list[bytes]:
    """A grey TIFF of each colour plane, and of the alpha plane where there is one; ``data`` are the file's bytes.

    Raises ImageError where the file lacks a plane.
    """
    tags = tags_of(image)
    bands = int(tags.get(_BANDS, 3))
    kept = {tag: (int(tags[tag]),) for tag in _KEPT if tag in tags}
    return [
        _with_directory(data, kept | _of_band(tags, band, bands)) for band in range(4 if image.mode == "RGBA" else 3)
    ]


def _of_band(tags: Mapping[int, Any], band: int, bands: int) -> dict[int, tuple[int, ...]]:
    found: dict[int, tuple[int, ...]] = {_BITS: (16,), _PHOTOMETRIC: (1,), _BANDS: (1,), _FORMAT: (1,)}
    for tag in _PLACES:
        if tag in tags:
            share = len(tags[tag]) // bands
            if not share:
                raise ImageError("damaged: it lacks a plane of its colours")
            found[tag] = tuple(map(int, tags[tag][band * share : (band + 1) * share]))
    return found


def _with_directory(data: bytes, tags: Mapping[int, tuple[int, ...]]) -> bytes:
    """The file with these tags (whole numbers) instead of its own, behind its content; its order of bytes stays."""
    order, at = "<" if data[:1] == b"I" else ">", len(data) + len(data) % 2
    beyond = at + 2 + 12 * len(tags) + 4
    entries, values = struct.pack(f"{order}H", len(tags)), b""
    for tag, numbers in sorted(tags.items()):
        short = tag in (_BITS, _FORMAT)
        raw = struct.pack(f"{order}{len(numbers)}{'H' if short else 'I'}", *numbers)
        entries += struct.pack(f"{order}HHI", tag, 3 if short else 4, len(numbers))
        entries += raw.ljust(4, b"\0") if len(raw) <= 4 else struct.pack(f"{order}I", beyond + len(values))
        values += raw if len(raw) > 4 else b""
    header = data[:2] + struct.pack(f"{order}HI", 42, at)
    return header + data[8:].ljust(at - 8, b"\0") + entries + bytes(4) + values

"""Limits on one image: bytes of its file, pixels of the picture, and scans of a progressive JPEG."""

from __future__ import annotations

import re

import numpy as np
from PIL import Image

from tl_kit.config import DecodeConfig
from tl_kit.errors import ImageError

__all__ = ["check_scans", "check_size", "most_bytes"]

_BYTES_A_PIXEL = 8  # four channels of 16 bits
_HEADERS = 2**26  # bytes of metadata, previews and further frames
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")  # of JPEG: those with a segment, and the end of the image


def most_bytes(config: DecodeConfig) -> int:
    """The size of the longest file that is read: the pixels allowed without compression, and 64 MiB besides."""
    return config.max_pixels * _BYTES_A_PIXEL + _HEADERS


def check_size(image: Image.Image, config: DecodeConfig) -> None:
    """Raises ImageError for an image of more pixels than ``config.max_pixels``, or of none."""
    width, height = image.size
    if min(width, height) < 1:
        raise ImageError(f"has no pixels: {width}x{height}")
    if width * height > config.max_pixels:
        limit = f"decompression bomb limit {config.max_pixels} pixels (--max-pixels)"
        raise ImageError(f"too large: {width}x{height} pixels, {limit}")


def check_scans(data: bytes, config: DecodeConfig) -> None:
    """Raises ImageError for a JPEG of more than ``config.max_scans`` scans: each goes over all pixels.

    A hundred bytes a scan would keep the decoder busy for hours.
    """
    if data.count(b"\xda") <= config.max_scans:  # much quicker than to look for both bytes
        return
    each = np.frombuffer(data, np.uint8)
    if np.count_nonzero((each[:-1] == 0xFF) & (each[1:] == 0xDA)) <= config.max_scans:
        return  # may also stand in metadata, or in a film behind the picture
    scans, at = 0, 2
    while (found := _MARKER.search(data, at)) and data[found.end() - 1] != 0xD9:
        scans += data[found.end() - 1] == 0xDA
        at = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
    if scans > config.max_scans:
        raise ImageError(f"too large: {scans} scans of one picture, at most {config.max_scans} are read")

"""Files that have gone wrong, one maker a kind: what lies in real folders, and what is put there on purpose.

``GOOD`` are odd but sound: an image must come out. ``BROKEN`` must be refused, with a reason that has the words given,
and so must ``ENTRIES``: what a folder may hold besides ordinary files. ``ODD_NAMES`` are names of sound images.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from tests.data.images import encoded, huge_bmp, noise, png, ycck_jpeg

__all__ = ["BROKEN", "ENTRIES", "GOOD", "KINDS", "ODD_NAMES", "many_scans", "plant", "png_chunks", "reason_of"]

SIDE = 40


def photo(seed: int = 0, *, height: int = SIDE, width: int = SIDE) -> Image.Image:
    """Coarse noise: enough detail that half a file is not the whole picture."""
    return Image.fromarray(noise(seed, height=height, width=width))


def png_chunks(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of these chunks (kind, data), with right checksums."""
    body = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


def _header(width: int, height: int, *, bits: int = 8, colour_type: int = 2) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)


def _bomb_png() -> bytes:
    """30,000 x 30,000 black pixels of one bit, in 110 kB."""
    packer = zlib.compressobj(9)
    row = b"\0" * (1 + 30000 // 8)
    data = b"".join(packer.compress(row) for _ in range(30000)) + packer.flush()
    return png_chunks(_header(30000, 30000, bits=1, colour_type=0), (b"IDAT", data), (b"IEND", b""))


def _exif(tag: int, value: object) -> Image.Exif:
    exif = Image.Exif()
    exif[tag] = value
    return exif


def many_scans(scans: int, *, behind: int = 0) -> bytes:
    """A JPEG with so many refining scans more than usual, and so many starts of scans behind its end."""
    data = encoded(photo(), "JPEG", progressive=True)
    start, end = data.rindex(b"\xff\xda"), data.rindex(b"\xff\xd9")
    return data[:end] + data[start:end] * scans + data[end:] + b"\xff\xda" * behind


def _with_palette(indices: np.ndarray, palette: bytes, *, transparency: bytes = b"") -> bytes:
    height, width = indices.shape
    raw = b"".join(b"\0" + row.tobytes() for row in indices.astype(np.uint8))
    key = ((b"tRNS", transparency),) if transparency else ()
    return png_chunks(
        _header(width, height, colour_type=3),
        *(((b"PLTE", palette),) if palette else ()),
        *key,
        (b"IDAT", zlib.compress(raw)),
        (b"IEND", b""),
    )


def _frames(file_format: str, **options: object) -> bytes:
    first, *others = (photo(seed) for seed in range(4))
    return encoded(first, file_format, save_all=True, append_images=others, duration=50, loop=0, **options)


def _wide(values: np.ndarray, file_format: str = "TIFF") -> bytes:
    return encoded(Image.fromarray(values), file_format)


# One entry: orientation (0x0112), of type text (2), six bytes at offset 26.
_TEXT_ORIENTATION = b"Exif\0\0" + struct.pack("<2sHIHHHIII", b"II", 42, 8, 1, 0x0112, 2, 6, 26, 0) + b"down!\0"
_RAMP = np.linspace(0, 65535, SIDE * SIDE).reshape(SIDE, SIDE)
_INDICES = (np.arange(SIDE * SIDE) % 256).reshape(SIDE, SIDE)
_NAN = np.where(_RAMP > 30000, np.nan, _RAMP).astype(np.float32)
_NAN[0, 0] = np.frombuffer(b"\x01\x00\x80\x7f", dtype="<f4")[0]  # a signalling NaN

GOOD: dict[str, Callable[[], bytes]] = {
    "png-named-jpg.jpg": lambda: encoded(photo(), "PNG"),
    "jpeg-named-png.png": lambda: encoded(photo(), "JPEG"),
    "orientation-99.jpg": lambda: encoded(photo(), "JPEG", exif=_exif(0x0112, 99)),
    "orientation-0.jpg": lambda: encoded(photo(), "JPEG", exif=_exif(0x0112, 0)),
    "orientation-text.jpg": lambda: encoded(photo(), "JPEG", exif=_TEXT_ORIENTATION),
    "exif-garbage.jpg": lambda: encoded(photo(), "JPEG", exif=b"Exif\0\0" + noise(1).tobytes()),
    "exif-huge.png": lambda: encoded(photo(), "PNG", exif=_exif(0x010E, "x" * 5_000_000)),
    "exif-full.jpg": lambda: encoded(photo(), "JPEG", exif=_exif(0x010E, "x" * 60_000)),
    "animated.gif": lambda: _frames("GIF"),
    "animated.webp": lambda: _frames("WEBP"),
    "animated.png": lambda: _frames("PNG"),
    "several-pages.tiff": lambda: _frames("TIFF"),
    "cmyk.jpg": lambda: encoded(photo().convert("CMYK"), "JPEG"),
    "cmyk-adobe-ycck.jpg": lambda: ycck_jpeg((120, 100, 90, 60)),
    "cmyk.tiff": lambda: encoded(photo().convert("CMYK"), "TIFF"),
    "16-bit-grey.png": lambda: _wide(_RAMP.astype(np.uint16), "PNG"),
    "16-bit-rgb.png": lambda: png(np.repeat(_RAMP.astype(np.uint16)[..., None], 3, axis=2), colour_type=2),
    "16-bit.tiff": lambda: _wide(_RAMP.astype(np.uint16)),
    "32-bit-integer.tiff": lambda: _wide(_RAMP.astype(np.int32) * 3 - 70000),
    "float.tiff": lambda: _wide((_RAMP / 65535).astype(np.float32)),
    "float-with-nan.tiff": lambda: _wide(_NAN),
    "float-all-nan.tiff": lambda: _wide(np.full((SIDE, SIDE), np.nan, np.float32)),
    "float-huge.tiff": lambda: _wide(np.where(_RAMP > 30000, 3e38, -3e38).astype(np.float32)),
    "grey-alpha.png": lambda: encoded(photo().convert("LA"), "PNG"),
    "rgb-alpha.png": lambda: encoded(photo().convert("RGBA"), "PNG"),
    "one-bit.png": lambda: encoded(photo().convert("1"), "PNG"),
    "palette-transparent.png": lambda: _with_palette(_INDICES % 16, bytes(48), transparency=bytes(16)),
    "palette-transparent.gif": lambda: encoded(photo().quantize(16), "GIF", transparency=3),
    "palette-not-of-threes.png": lambda: _with_palette(_INDICES, b"12345"),
    "palette-short.png": lambda: _with_palette(_INDICES, bytes(range(30))),
    "one-pixel.png": lambda: encoded(photo(height=1, width=1), "PNG"),
    "one-pixel.jpg": lambda: encoded(photo(height=1, width=1), "JPEG"),
    "1x10000.png": lambda: encoded(photo(height=10000, width=1), "PNG"),
    "10000x1.png": lambda: encoded(photo(height=1, width=10000), "PNG"),
    "10000x1.jpg": lambda: encoded(photo(height=1, width=10000), "JPEG"),
    "film-behind.jpg": lambda: many_scans(0, behind=600),
    "bytes-after-the-end.jpg": lambda: encoded(photo(), "JPEG") + b"PK\x03\x04" * 1000,
}

BROKEN: dict[str, tuple[Callable[[], bytes], str]] = {
    "zero.jpg": (lambda: b"", "empty file"),
    "text.jpg": (lambda: b"this is no picture at all, but a text\n", "not an image"),
    "html.jpg": (lambda: b"<!DOCTYPE html><html><body>404</body></html>", "not an image"),
    "zeros.jpg": (lambda: bytes(5000), "not an image"),
    "one-byte.jpg": (lambda: b"\xff", "not an image"),
    "truncated.jpg": (lambda: encoded(photo(), "JPEG")[:900], "truncated"),
    "truncated-header.jpg": (lambda: encoded(photo(), "JPEG")[:30], "truncated"),
    "truncated.png": (lambda: encoded(photo(), "PNG")[:2000], "truncated"),
    "truncated.gif": (lambda: encoded(photo(), "GIF")[:1200], "truncated"),
    "truncated.webp": (lambda: encoded(photo(), "WEBP")[:300], "damaged: "),
    "truncated.tiff": (lambda: encoded(photo(), "TIFF")[:2000], "truncated"),
    "truncated.bmp": (lambda: encoded(photo(), "BMP")[:2000], "truncated"),
    "wrong-checksum.png": (lambda: encoded(photo(), "PNG").replace(b"IDAT", b"IDAt"), "damaged: "),
    "palette-missing.png": (lambda: _with_palette(_INDICES, b""), "damaged: "),
    "no-pixels.png": (lambda: png_chunks(_header(8, 8), (b"IEND", b"")), "damaged: "),
    "zero-wide.png": (lambda: png_chunks(_header(0, 8), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")), "damaged: "),
    "bomb.png": (_bomb_png, "too large: 30000x30000 pixels"),
    "bomb.bmp": (lambda: huge_bmp(width=60000, height=60000), "too large: 60000x60000 pixels"),
    "600-scans.jpg": (lambda: many_scans(600), " scans of one picture"),
    "heic.jpg": (lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100), "HEIC"),
    "lab.tiff": (lambda: encoded(Image.new("LAB", (SIDE, SIDE)), "TIFF"), "LAB"),
}

ENTRIES: dict[str, tuple[Callable[[Path], None], str]] = {
    "dangling.jpg": (lambda path: path.symlink_to("gone.jpg"), "dangling symbolic link"),
    "itself.jpg": (lambda path: path.symlink_to(path.name), "symbolic link in a loop"),
    "loop": (lambda path: path.symlink_to(path.parent), "symbolic link to a folder that is read already"),
    "above": (lambda path: path.symlink_to(path.parent.parent), "symbolic link to a folder that is read already"),
    "pipe.jpg": (os.mkfifo, "not a regular file"),
    "endless.jpg": (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
    "folder.jpg": (Path.mkdir, "empty folder that is named like an image"),
}

ODD_NAMES = (
    "new\nline.png",
    "return\rtab\t.png",
    "escape\x1b[31m\x07.png",
    "override\u202egnp.png",
    'quote",comma.png',
    "=1+1.png",
    "[red]markup.png",
    " blank .png",
    "-dash.png",
    "%s{0}$HOME$.png",
    "*.png",
    f"{'long' * 62}.png",
    os.fsdecode(b"caf\xe9.png"),
)

KINDS = (*GOOD, *BROKEN, *ENTRIES, *ODD_NAMES)


def plant(folder: Path, kind: str) -> Path:
    """Put one of :data:`KINDS` into a folder; returns its path there."""
    path = folder / kind
    if kind in ENTRIES:
        ENTRIES[kind][0](path)
    elif kind in GOOD:
        path.write_bytes(GOOD[kind]())
    elif kind in BROKEN:
        path.write_bytes(BROKEN[kind][0]())
    else:
        path.write_bytes(encoded(photo(5000 + ODD_NAMES.index(kind)), "PNG"))
    return path


def reason_of(kind: str) -> str | None:
    """Words that the reason must have for which a kind is left out; None for a sound image."""
    found = BROKEN.get(kind) or ENTRIES.get(kind)
    return None if found is None else found[1]

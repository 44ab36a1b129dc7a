"""Small sound images of every format, and ways to break them: blindly, and where the format's own structure is."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

from tests.data.images import encoded, noise, png, ppm, tiff, ycck_jpeg

__all__ = ["SEEDS", "mutate", "mutate_csv"]

_SIDE = 20
_RGB = Image.fromarray(noise(7, height=_SIDE, width=_SIDE))
_GREY16 = (np.arange(_SIDE * _SIDE) * 160).astype(np.uint16).reshape(_SIDE, _SIDE)
_EXIF = Image.Exif()
_EXIF[0x0112] = 6
_EXIF[0x010E] = "description"


def _frames(file_format: str) -> bytes:
    first, *others = (_RGB.rotate(angle) for angle in (0, 90, 180))
    return encoded(first, file_format, save_all=True, append_images=others)


def _seeds() -> dict[str, bytes]:
    floats = Image.fromarray((_GREY16 / 65535).astype(np.float32))
    found = {
        "jpeg": encoded(_RGB, "JPEG", exif=_EXIF),
        "jpeg-progressive": encoded(_RGB, "JPEG", progressive=True),
        "jpeg-ycck": ycck_jpeg((120, 100, 90, 60)),
        "mpo": _frames("MPO"),
        "png": encoded(_RGB, "PNG", exif=_EXIF),
        "png-palette": encoded(_RGB.quantize(16), "PNG", transparency=3),
        "png-16": png(np.repeat(_GREY16[..., None], 3, axis=2), colour_type=2, transparency=bytes(6)),
        "png-animated": _frames("PNG"),
        "gif": encoded(_RGB.quantize(32), "GIF", transparency=5),
        "gif-animated": _frames("GIF"),
        "webp": encoded(_RGB, "WEBP", exif=_EXIF),
        "webp-lossless": encoded(_RGB.convert("RGBA"), "WEBP", lossless=True),
        "webp-animated": _frames("WEBP"),
        "bmp": encoded(_RGB, "BMP"),
        "bmp-palette": encoded(_RGB.quantize(16), "BMP"),
        "tiff": encoded(_RGB, "TIFF", exif=_EXIF),
        "tiff-float": encoded(floats, "TIFF"),
        "tiff-pages": _frames("TIFF"),
        "png-16-grey-alpha": png(np.dstack([_GREY16, _GREY16]), colour_type=4),
        "tiff-16-rgb": tiff(np.dstack([_GREY16] * 3), rows=7),
        "tiff-16-planes": tiff(np.dstack([_GREY16] * 3), planar=True, deflate=True, order=">"),
        "tiff-16-tiles": tiff(np.dstack([_GREY16] * 4), extra=(1,), tile=16),
        "tiff-int16": tiff(_GREY16.astype(np.int16), deflate=True, order=">"),
        "ppm": ppm(_GREY16),
        "ppm-rgb": ppm(np.dstack([_GREY16] * 3)),
        "ico": encoded(_RGB, "ICO", sizes=[(16, 16)]),
        "jpeg2000": encoded(_RGB, "JPEG2000"),
    }
    for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        found[f"tiff-{name.removeprefix('tiff_')}"] = encoded(_RGB, "TIFF", compression=name)
    found["tiff-group4"] = encoded(_RGB.convert("1"), "TIFF", compression="group4")
    if "AVIF" in Image.SAVE:
        found["avif"] = encoded(_RGB, "AVIF", speed=10)
    return found


SEEDS = _seeds()
_EDGES = (0, 1, 2, 3, 7, 8, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_Blind = Callable[[bytearray, random.Random], bytearray]


def mutate(name: str, seed: int) -> bytes:
    """The seed image ``name``, broken in one to four ways that ``seed`` draws."""
    rng = random.Random(f"{name}/{seed}")
    data = bytearray(SEEDS[name])
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        change = rng.choice(_BLIND)
        if rng.random() < 0.5:
            change = next((edit for start, edit in _STRUCTURED if bytes(data[:4]) in start), change)
        data = change(data, rng) or bytearray(b"\0")
    return bytes(data)


def mutate_csv(seed: int) -> bytes:
    """A CSV file of images, broken in one to four ways, or made odd, as ``seed`` draws."""
    rng = random.Random(f"csv/{seed}")
    data = bytearray(rng.choice(_CSV_FILES))
    for _ in range(rng.choice((1, 1, 2, 3, 4))):
        if rng.random() < 0.5:
            data = rng.choice((_flip_bits, _truncate, _cut_out, _repeat))(data, rng) or bytearray(b" ")
            continue
        at = rng.randrange(len(data))
        data[at : at + rng.choice((0, 0, 1, 5))] = rng.choice(_CSV_PIECES)
        data = data or bytearray(b" ")
    return bytes(data)


_CSV_FILES = (
    b"path,label\na.png,x\na.png,x\nb.png,y\n",
    b"path,label,split,group\na.png,x,train,1\nb.png,y,val,2\n/etc/passwd,y,test,\n",
    b'\xef\xbb\xbflabel;path;Split\r\nx;a.png;train\r\ny;"b;c.png";val\r\n',
    b'path\tlabel\tnote\na.png\tx\t"two\nlines"\n./a.png\ty\t\n',
)
_CSV_PIECES = (
    b'"',
    b'""',
    b",",
    b";",
    b"\t",
    b"\n",
    b"\r",
    b"\r\n",
    b"\0",
    b"\xff",
    b"\xed\xb3\xa9",
    b"path",
    b"label",
    b"split,",
    b"../" * 1500,
    b"x" * 5000,
    b"9" * 5000,
    b"x" * 140_000,
    b"\xe2\x80\xae",
    b"test",
    b"\xef\xbb\xbf",
    b" ",
    b"\x85",
    b"\x1c",
)


def _flip_bits(data: bytearray, rng: random.Random) -> bytearray:
    for _ in range(rng.choice((1, 2, 8, 64))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def _truncate(data: bytearray, rng: random.Random) -> bytearray:
    return data[: rng.randrange(len(data) + 1)]


def _cut_out(data: bytearray, rng: random.Random) -> bytearray:
    start = rng.randrange(len(data))
    del data[start : start + rng.choice((1, 2, 4, 16, 256))]
    return data


def _repeat(data: bytearray, rng: random.Random) -> bytearray:
    start = rng.randrange(len(data))
    piece = data[start : start + rng.choice((1, 4, 64, 1024))] * rng.choice((1, 2, 50))
    return data[:start] + piece + data[start:]


def _splice(data: bytearray, rng: random.Random) -> bytearray:
    """The front of one image and the back of another, of any format."""
    other = SEEDS[rng.choice(sorted(SEEDS))]
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other)) :]


def _set_number(data: bytearray, rng: random.Random) -> bytearray:
    """A number at the edge of its type, at any place: lengths, sizes, offsets and counts are such numbers."""
    form = rng.choice((">H", "<H", ">I", "<I", "B"))
    size = struct.calcsize(form)
    if len(data) >= size:
        struct.pack_into(form, data, rng.randrange(len(data) - size + 1), rng.choice(_EDGES) % 256**size)
    return data


_BLIND: tuple[_Blind, ...] = (_flip_bits, _truncate, _cut_out, _repeat, _splice, _set_number)


def _edit_png(data: bytearray, rng: random.Random) -> bytearray:
    """One chunk gets another length, content, kind or place; checksums are right again, so that the decoder goes on."""
    chunks, at = [], 8
    while at + 12 <= len(data):
        length = struct.unpack_from(">I", data, at)[0]
        chunks.append((bytes(data[at + 4 : at + 8]), bytes(data[at + 8 : at + 8 + length])))
        at += 12 + length
    if not chunks:
        return data
    index = rng.randrange(len(chunks))
    kind, content = chunks[index]
    action = rng.randrange(5)
    if action == 0:
        del chunks[index]
    elif action == 1:
        chunks.insert(rng.randrange(len(chunks)), (kind, content))
    elif action == 2:
        chunks[index] = (rng.choice((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"acTL", b"fcTL", b"fdAT", b"iCCP")), content)
    elif kind == b"IDAT" and action == 3:
        chunks[index] = (kind, _recompressed(content, rng))
    else:
        chunks[index] = (kind, bytes(rng.choice(_BLIND)(bytearray(content or b"\0"), rng)))
    body = bytearray(data[:8])
    for kind, content in chunks:
        length = len(content) if rng.random() < 0.9 else rng.choice(_EDGES)
        body += struct.pack(">I", length) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return body


def _recompressed(content: bytes, rng: random.Random) -> bytes:
    try:
        raw = bytearray(zlib.decompress(content))
    except zlib.error:
        return content
    return zlib.compress(bytes(rng.choice(_BLIND)(raw or bytearray(1), rng)))


def _edit_jpeg(data: bytearray, rng: random.Random) -> bytearray:
    """A segment's marker or length is changed, or what it says: tables, size, components, scans."""
    places, at = [], 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        places.append(at)
        at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    if not places:
        return data
    at = rng.choice(places)
    length = struct.unpack_from(">H", data, at + 2)[0]
    action = rng.randrange(4)
    if action == 0:
        data[at + 1] = rng.choice((0xC0, 0xC1, 0xC2, 0xC3, 0xC4, 0xC9, 0xDA, 0xDB, 0xDD, 0xD9, 0xE0, 0xE1, 0xEE, 0xFE))
    elif action == 1:
        struct.pack_into(">H", data, at + 2, rng.choice(_EDGES) & 0xFFFF)
    elif action == 2:
        return data[:at] + data[at : at + 2 + length] * rng.choice((2, 30)) + data[at + 2 + length :]
    elif at + 4 < len(data):
        data[min(len(data) - 1, at + 4 + rng.randrange(max(1, length - 2)))] = rng.choice(_EDGES) & 0xFF
    return data


def _edit_tiff(data: bytearray, rng: random.Random) -> bytearray:
    """An entry of the first directory gets another tag, type, count or value."""
    order = "<" if data[:2] == b"II" else ">"
    if len(data) < 8:
        return data
    start = struct.unpack_from(f"{order}I", data, 4)[0]
    if start + 2 > len(data):
        return data
    entries = struct.unpack_from(f"{order}H", data, start)[0]
    at = start + 2 + 12 * rng.randrange(max(1, entries))
    if at + 12 > len(data):
        return data
    form, place, values = rng.choice(
        (
            ("H", 0, (256, 257, 258, 259, 262, 273, 274, 277, 278, 279, 284, 317, 320, 322, 323, 324, 338, 339, 34675)),
            ("H", 2, range(14)),
            ("I", 4, _EDGES),
            ("I", 8, (*_EDGES, 5, 6, 32773, 32946, 34712, start, len(data) - 1)),
            ("H", 8, (*range(10), 16, 32, 64, 255, 65535)),
        )
    )
    struct.pack_into(f"{order}{form}", data, at + place, rng.choice(values))
    return data


def _edit_riff(data: bytearray, rng: random.Random) -> bytearray:
    """A chunk's kind or length is changed."""
    places, at = [4], 12
    while at + 8 <= len(data):
        places.append(at + 4)
        at += 8 + (struct.unpack_from("<I", data, at + 4)[0] + 1) // 2 * 2
    at = rng.choice(places)
    if at + 4 > len(data):
        return data
    if rng.random() < 0.3 and at > 4:
        data[at - 4 : at] = rng.choice((b"VP8 ", b"VP8L", b"VP8X", b"ANIM", b"ANMF", b"ALPH", b"EXIF", b"ICCP"))
    else:
        struct.pack_into("<I", data, at, rng.choice(_EDGES))
    return data


def _edit_gif(data: bytearray, rng: random.Random) -> bytearray:
    """The screen's size, flags and background; the first frames' descriptors and code sizes."""
    places = [*range(6, 13), *(i for i in range(13, len(data)) if data[i] in (0x21, 0x2C, 0x3B))]
    at = min(len(data) - 1, rng.choice(places) + rng.randrange(10))
    data[at] = rng.choice(_EDGES) & 0xFF
    return data


def _edit_header(data: bytearray, rng: random.Random) -> bytearray:
    """A number among the first bytes: what BMP, ICO, PPM, JPEG 2000 and AVIF say of sizes, depths and offsets."""
    form = rng.choice(("<H", "<I", ">H", ">I", "B"))
    size = struct.calcsize(form)
    at = rng.randrange(max(1, min(len(data), 200) - size))
    if at + size <= len(data):
        struct.pack_into(form, data, at, rng.choice(_EDGES) % 256**size)
    return data


class _Anything:
    """Contains every beginning: the last rule."""

    def __contains__(self, beginning: bytes) -> bool:
        return True


_STRUCTURED = (
    ((b"\x89PNG",), _edit_png),
    ({b"\xff\xd8\xff" + bytes([marker]) for marker in range(256)}, _edit_jpeg),
    ((b"II*\0", b"MM\0*"), _edit_tiff),
    ((b"RIFF",), _edit_riff),
    ((b"GIF8",), _edit_gif),
    (_Anything(), _edit_header),
)

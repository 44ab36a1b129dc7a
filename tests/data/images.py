"""Writers of images that the tests need: plain ones in any number, and odd ones that Pillow itself does not write."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

# Builds the stored pixels from the upright ones, for each EXIF orientation (Exif 2.32, tag 0x0112: "6" means that
# row 0 of the file is the right-hand side of the scene and column 0 its top).
STORED = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: upright[:, ::-1].swapaxes(0, 1),
    7: lambda upright: upright[::-1, ::-1].swapaxes(0, 1),
    8: lambda upright: upright[::-1].swapaxes(0, 1),
}


def encoded(image: Image.Image, file_format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def noise(seed: int, *, height: int = 8, width: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write_image(path: Path, seed: int, *, size: int = 8) -> Path:
    """A PNG of noise that no other seed gives."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(Image.fromarray(noise(seed, height=size, width=size)), "PNG"))
    return path


def write_classes(root: Path, counts: dict[str, int], *, seed: int = 0) -> Path:
    """Class folders with that many images each; ``seed`` separates the images of one call from another's."""
    for position, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            write_image(root / name / f"{index}.png", seed * 1_000_000 + position * 10_000 + index)
    return root


def png(samples: np.ndarray, *, colour_type: int, transparency: bytes = b"") -> bytes:
    """A 16-bit PNG of samples (height, width, channels), uint16: the kinds that Pillow reads but does not write."""
    height, width = samples.shape[:2]
    rows = samples.astype(">u2").reshape(height, -1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0))
    key = chunk(b"tRNS", transparency) if transparency else b""
    return b"\x89PNG\r\n\x1a\n" + header + key + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def ppm(samples: np.ndarray) -> bytes:
    """A 16-bit binary PGM or PPM of samples (height, width) or (height, width, 3)."""
    kind = b"P5" if samples.ndim == 2 else b"P6"
    return kind + f"\n{samples.shape[1]} {samples.shape[0]}\n65535\n".encode() + samples.astype(">u2").tobytes()


def ycck_jpeg(stored: tuple[int, int, int, int], *, side: int = 16) -> bytes:
    """A JPEG of one colour whose components are Y, Cb, Cr and K, with Adobe's marker saying so (transform 2)."""
    inverted = tuple(255 - value for value in stored)  # Pillow writes CMYK the way Adobe does, inverted
    data = encoded(Image.new("CMYK", (side, side), inverted), "JPEG", quality=100, subsampling=0)
    at = data.index(b"Adobe") + 11
    assert data[at] == 0
    return data[:at] + b"\x02" + data[at + 1 :]


def huge_bmp(*, width: int, height: int) -> bytes:
    """The header of a bitmap that claims to be of this size, without its pixels."""
    return struct.pack("<2sIHHI", b"BM", 54, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, *[0] * 6)


def tiff(
    samples: np.ndarray,
    *,
    order: str = "<",
    bits: int | None = None,
    sample_format: int | None = None,
    photometric: int | None = None,
    extra: tuple[int, ...] = (),
    planar: bool = False,
    deflate: bool = False,
    rows: int | None = None,
    tile: int | None = None,
    tags: dict[int, tuple[int, ...]] | None = None,
) -> bytes:
    """A TIFF of samples (height, width) or (height, width, bands): the kinds that Pillow reads but does not write.

    ``rows`` a strip, or square tiles of a side; ``order``: "<" or ">"; ``tags``: further ones, as LONGs.
    """
    bands = 1 if samples.ndim == 2 else samples.shape[2]
    cube = samples.reshape(*samples.shape[:2], bands)
    height, width = samples.shape[:2]
    cube = cube.astype(cube.dtype.newbyteorder(order))
    parts = []
    for plane in [cube[..., band : band + 1] for band in range(bands)] if planar else [cube]:
        if tile:
            padded = np.zeros((-(-height // tile) * tile, -(-width // tile) * tile, plane.shape[2]), cube.dtype)
            padded[:height, :width] = plane
            parts += [
                padded[y : y + tile, x : x + tile].tobytes()
                for y in range(0, height, tile)
                for x in range(0, width, tile)
            ]
        else:
            step = rows or height
            parts += [plane[y : y + step].tobytes() for y in range(0, height, step)]
    parts = [zlib.compress(part) if deflate else part for part in parts]
    starts = [8 + sum(map(len, parts[:index])) for index in range(len(parts))]
    kind = sample_format or {"u": 1, "i": 2, "f": 3, "c": 6}[cube.dtype.kind]
    entries: dict[int, tuple[int, tuple[int, ...]]] = {
        256: (4, (width,)),
        257: (4, (height,)),
        258: (3, (bits or cube.dtype.itemsize * 8,) * bands),
        259: (3, (8 if deflate else 1,)),
        262: (3, (photometric if photometric is not None else 2 if bands >= 3 else 1,)),
        277: (3, (bands,)),
        284: (3, (2 if planar else 1,)),
        339: (3, (kind,) * bands),
    }
    if extra:
        entries[338] = (3, extra)
    if tile:
        entries |= {322: (4, (tile,)), 323: (4, (tile,)), 324: (4, tuple(starts)), 325: (4, tuple(map(len, parts)))}
    else:
        entries |= {278: (4, (rows or height,)), 273: (4, tuple(starts)), 279: (4, tuple(map(len, parts)))}
    entries |= {tag: (4, values) for tag, values in (tags or {}).items()}
    return _tiff_file(parts, entries, order)


def _tiff_file(parts: list[bytes], entries: dict[int, tuple[int, tuple[int, ...]]], order: str) -> bytes:
    at = 8 + sum(map(len, parts))
    beyond = at + 2 + 12 * len(entries) + 4
    directory, values = struct.pack(f"{order}H", len(entries)), b""
    for tag, (kind, numbers) in sorted(entries.items()):
        raw = struct.pack(f"{order}{len(numbers)}{'H' if kind == 3 else 'I'}", *numbers)
        directory += struct.pack(f"{order}HHI", tag, kind, len(numbers))
        directory += raw.ljust(4, b"\0") if len(raw) <= 4 else struct.pack(f"{order}I", beyond + len(values))
        values += raw if len(raw) > 4 else b""
    magic = b"II" if order == "<" else b"MM"
    header = magic + struct.pack(f"{order}HI", 42, at)
    return header + b"".join(parts) + directory + struct.pack(f"{order}I", 0) + values


def netpbm(kind: str, samples: np.ndarray, white: int) -> bytes:
    """A PGM or PPM, binary or plain, of another white than 65535."""
    head = f"{kind}\n# a comment\n{samples.shape[1]} {samples.shape[0]}\n{white}\n".encode()
    return head + (
        samples.astype(">u2").tobytes() if kind in ("P5", "P6") else b" ".join(b"%d" % v for v in samples.flat)
    )

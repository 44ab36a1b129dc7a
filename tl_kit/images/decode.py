"""The one image decoder: whatever Pillow can read, as 8-bit RGB, the same for training and for prediction."""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile

from tl_kit.config import DecodeConfig, ReadConfig
from tl_kit.errors import ImageError
from tl_kit.images.colour import deep_to_rgb, to_rgb
from tl_kit.images.deep import Deep, SampleRanges, deep_kind, lies_outside
from tl_kit.images.limits import check_scans, check_size, most_bytes
from tl_kit.images.other_formats import PREFIX, foreign, misread, undecodable, unsupported
from tl_kit.images.samples import Samples, file_of, load_samples, reads_high_byte
from tl_kit.images.silence_pillow import hush_pillow
from tl_kit.machine.runtime import available_cores

__all__ = [
    "CHANGED",
    "FORMATS",
    "check_header",
    "decode",
    "decode_as",
    "decode_pool",
    "decode_samples",
    "in_few",
    "in_pool",
    "open_header",
    "read_file",
    "read_sample",
    "sniff",
    "upright_size",
    "upright_sizes",
]

# Formats that Pillow decodes itself. EPS and its like start another program, so they are not here.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "ICO", "AVIF", "JPEG2000")
_WEAK_SIGNATURE = ("BMP", "PPM", "ICO")  # so short that ordinary text can start with it
_DEFAULT = DecodeConfig()
_READ = ReadConfig()
_Item = TypeVar("_Item")
_Found = TypeVar("_Found")
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_STORED_SIZE = (256, 257)  # TIFF's tags ImageWidth and ImageLength
_SIDEWAYS = tuple(_TURNS[number] for number in (5, 6, 7, 8))
_LONGEST_REASON = 100
_AT_ONCE = 2**18  # bytes of a file that are read before it is known whether it begins like an image: most photos
_UNSUPPORTED = re.compile("unsupported|not supported|cannot handle|unknown", re.IGNORECASE)
_MOST_A_TASK, _TASKS_A_THREAD = 16, 4  # fewer tasks than that a thread, and the last ones would be waited for
CHANGED = "the file changed since the scan"

Image.init()


def decode(
    source: Path | bytes | Image.Image,
    *,
    min_side: int | None = None,
    config: DecodeConfig = _DEFAULT,
    ranges: SampleRanges | None = None,
) -> Image.Image:
    """Decode one image to mode RGB, 8 bits a channel, upright.

    The content decides the format, not the file's ending. EXIF orientation is applied, alpha and transparent colours
    are composited onto white, and of an animation the first frame is taken. Samples of more than 8 bits are read over
    their range in ``ranges``, or without one over that of their type (:func:`deep_to_rgb`).
    An opened Pillow image is taken at the frame where it stands, and is not changed.

    ``min_side`` (pixels): a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size (the DCT scaling of libjpeg) as long
    as its short side stays at least ``2 * min_side``, enough for any resize to ``min_side`` that follows.

    Raises :class:`ImageError` with a short reason that does not name the file. Safe to call from many threads.
    """
    return _decoded(source, min_side=min_side, config=config, ranges=ranges)[0]


def decode_as(
    source: Path | bytes | Image.Image,
    *,
    min_side: int | None = None,
    config: DecodeConfig = _DEFAULT,
    ranges: SampleRanges | None = None,
) -> tuple[Image.Image, Deep | None]:
    """:func:`decode`, and the facts of an image whose samples have more than 8 bits (:func:`deep_kind`)."""
    found, kind, samples = _decoded(source, min_side=min_side, config=config, ranges=ranges)
    bounds = None if samples is None or ranges is None else ranges.get(samples.kind)
    outside = bounds is not None and samples is not None and lies_outside(samples.opaque(), bounds)
    return found, None if kind is None else Deep(kind, bounds if outside else None)


def _decoded(
    source: Path | bytes | Image.Image, *, min_side: int | None, config: DecodeConfig, ranges: SampleRanges | None
) -> tuple[Image.Image, str | None, Samples | None]:
    """The image, the kind of its samples where it is deep, and these where all their bits were read."""
    with _reasons():
        data = read_file(source, config) if isinstance(source, Path) else source
        if isinstance(data, Image.Image):
            data = file_of(data) or data
    with _reasons(data if isinstance(data, bytes) else b""):
        image = _open(data, config) if isinstance(data, bytes) else data
        check_size(image, config)
        if min_side is not None and image is not source and image.format in ("JPEG", "MPO"):
            image.draft(None, (2 * min_side, 2 * min_side))
        kind = deep_kind(image)
        if not isinstance(data, bytes) and image.mode in ("RGB", "RGBA"):
            kind = None  # its further bits are lost
        if ranges is not None and kind == "uint16" and ranges.get(kind) == (0, 65535):
            ranges = None  # read the same way, in half the time
        if kind is None or (ranges is None and reads_high_byte(image)):
            image.load()
            check_size(image, config)  # an icon may hold a larger picture than its header says
            found, samples = to_rgb(image), None
        else:
            samples = load_samples(image, kind, data if isinstance(data, bytes) else None)
            found = deep_to_rgb(samples, ranges)
        turn = _TURNS.get(_orientation(image))
        return (found if turn is None else found.transpose(turn)), kind, samples


def decode_samples(path: Path, *, config: DecodeConfig = _DEFAULT) -> NDArray[Any]:
    """All samples (n,) of a deep image that can be seen, as the file holds them; none of others. Raises ImageError."""
    with _reasons():
        data = read_file(path, config)
        image = _open(data, config)
        check_size(image, config)
        kind = deep_kind(image)
        return np.empty(0) if kind is None else load_samples(image, kind, data).opaque()


@contextmanager
def _reasons(data: bytes = b"") -> Iterator[None]:
    """Turn any error while decoding an image, whose file has these bytes, into an ImageError."""
    hush_pillow()
    try:
        yield
    except ImageError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly every built-in exception on damaged data
        raise ImageError(undecodable(data) or _reason(error)) from error


def check_header(data: bytes, *, config: DecodeConfig = _DEFAULT) -> None:
    """Read an image's header, without its pixels. Raises :class:`ImageError` as :func:`decode` does."""
    open_header(data, config=config)


def open_header(data: bytes, *, config: DecodeConfig = _DEFAULT) -> Image.Image:
    """An image whose pixels are not decoded yet: format, size and metadata. Raises as :func:`decode` does."""
    with _reasons():
        image = _open(data, config)
        check_size(image, config)
        return image


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height, in pixels, of an image that is opened and not decoded, once it is turned upright.

    Of a TIFF, Pillow gives the size once it is turned, and the tags have the stored one.
    """
    tags = getattr(image, "tag_v2", {})
    width, height = (int(tags.get(tag, side)) for tag, side in zip(_STORED_SIZE, image.size, strict=True))
    turned = _TURNS.get(_orientation(image)) in _SIDEWAYS
    return (height, width) if turned else (width, height)


def upright_sizes(paths: Iterable[Path], config: DecodeConfig = _DEFAULT) -> list[tuple[int, int]]:
    """Sizes of images by their headers, as :func:`upright_size`; files whose header cannot be read are left out."""

    def one(path: Path) -> tuple[int, int] | None:
        with suppress(ImageError):
            return upright_size(open_header(read_file(path, config), config=config))
        return None

    return [size for size in decode_pool().map(one, paths) if size is not None]


def read_file(path: Path, config: DecodeConfig = _DEFAULT) -> bytes:
    """The bytes of a file; of one that does not begin like an image, the first few hundred.

    Raises :class:`ImageError` if it cannot be read, is empty, no regular file (a pipe would wait for ever), or longer
    than ``config.max_pixels`` pixels can be.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("is a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file")
        # No buffered stream: each of its many calls gives up the interpreter lock, for which all threads wait.
        file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        try:
            data = _bytes_of(file, min(status.st_size, _AT_ONCE))
            if not sniff(data):
                return data[: 16 if foreign(data[:16]) else PREFIX]
            if status.st_size > most_bytes(config):
                raise ImageError(f"too large: {status.st_size} bytes, at most {most_bytes(config)} are read")
            return data if len(data) == status.st_size else data + _bytes_of(file, status.st_size - len(data))
        finally:
            os.close(file)
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise ImageError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _bytes_of(file: int, size: int) -> bytes:
    """So many bytes of an open file, or the rest where there are fewer."""
    data = os.read(file, size)
    while len(data) < size and (more := os.read(file, size - len(data))):
        data += more
    return data


def read_sample(path: Path, digest: str, config: DecodeConfig = _DEFAULT) -> bytes:
    """The bytes of a file whose SHA-256 (hex) the scan noted.

    Raises :class:`ImageError` where they are others now: labels, splits and caches go by the digest. Else as
    :func:`read_file`.
    """
    data = read_file(path, config)
    if hashlib.sha256(data).hexdigest() != digest:
        raise ImageError(CHANGED)
    return data


def sniff(prefix: bytes) -> bool:
    """True where a file that starts with these (16 or more) bytes may be an image of one of :data:`FORMATS`."""
    return any(_accepts(name, prefix[:16].ljust(16, b"\0")) for name in FORMATS)


def _accepts(name: str, prefix: bytes) -> bool:
    if name not in Image.OPEN:  # this Pillow was built without it
        return False
    accept = Image.OPEN[name][1]
    return accept is not None and accept(prefix) is True


def _open(data: bytes, config: DecodeConfig) -> Image.Image:
    """Open an image as ``Image.open`` does, without its size check, whose limit is one for the whole process."""
    if not data:
        raise ImageError("empty file")
    prefix = data[:16].ljust(16, b"\0")
    for name in FORMATS:
        if not _accepts(name, prefix):
            continue
        try:
            image: ImageFile.ImageFile = Image.OPEN[name][0](io.BytesIO(data), "")
        except (SyntaxError, IndexError, KeyError, TypeError, struct.error):
            continue
        if name == "JPEG":
            check_scans(data, config)
        reason = misread(image)
        if reason is not None:
            raise ImageError(reason)
        return image
    strong = [name for name in FORMATS if name not in _WEAK_SIGNATURE and _accepts(name, prefix)]
    reason = foreign(data)
    if strong and reason is None:
        reason = unsupported(strong[0], data) or f"damaged: its {strong[0]} header cannot be read"
    raise ImageError(reason or "not an image")


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 - broken metadata says nothing against the pixels
        return 1


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, EOFError) or "truncated" in text.lower():
        return "truncated"
    if isinstance(error, (Image.DecompressionBombError, MemoryError)):
        return f"too large: {text}"
    if not isinstance(error, (OSError, SyntaxError, ValueError)):  # a decoder's own mistake: its text helps nobody
        return "damaged: its content makes no sense"
    if _UNSUPPORTED.search(text):
        return f"damaged, or of a kind that cannot be read ({text[: _LONGEST_REASON // 2]}): save it as PNG or JPEG"
    return f"damaged: {text if len(text) <= _LONGEST_REASON else text[:_LONGEST_REASON] + '…'}"


def decode_pool() -> ThreadPoolExecutor:
    """The threads that read and decode images; Pillow releases the interpreter lock while it works.

    A forked process has threads of its own.
    """
    return _pool_of(os.getpid())


def in_pool(work: Callable[[_Item], _Found], items: Sequence[_Item]) -> Iterator[_Found]:
    """``work`` of each item, in the items' order, done by :func:`decode_pool`. What it raises is raised here.

    Several of many items are one task: a task takes the interpreter lock about as long as reading a small file does.
    """
    size = max(1, min(_MOST_A_TASK, len(items) // (_TASKS_A_THREAD * available_cores())))
    tasks = [items[start : start + size] for start in range(0, len(items), size)]
    for found in decode_pool().map(lambda task: [work(item) for item in task], tasks):
        yield from found


def in_few(work: Callable[[_Item], _Found], items: Sequence[_Item], *, config: ReadConfig = _READ) -> Iterator[_Found]:
    """:func:`in_pool` for work that may be quick, such as reading a file: by two threads if it is, else by all.

    Quick work is mostly Python. A thread that waits for the interpreter lock has to be woken, and with many of them
    nearly every system call wakes one: sixteen read 2,700 files a second where one alone reads several times as many.
    """
    started = time.perf_counter()
    found = [work(item) for item in items[: config.tried]]
    quick = time.perf_counter() - started < config.quick * len(found)
    threads = config.few if quick else available_cores()
    yield from found
    for start in range(len(found), len(items), config.turn):
        some = items[start : start + config.turn]
        results: dict[int, _Found] = {}
        todo = iter(range(len(some)))  # each thread takes the next one
        tasks = [decode_pool().submit(_take, work, some, todo, results) for _ in range(min(threads, len(some)))]
        try:
            for task in tasks:
                task.result()
        finally:
            list(todo)  # where one fails, or the user interrupts, the threads take no more
        yield from (results[place] for place in range(len(some)))


def _take(
    work: Callable[[_Item], _Found], items: Sequence[_Item], todo: Iterator[int], results: dict[int, _Found]
) -> None:
    for place in todo:
        results[place] = work(items[place])


@lru_cache(maxsize=1)
def _pool_of(_process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=available_cores(), thread_name_prefix="tlkit-decode")

"""The one image decoder: whatever Pillow can read, as 8-bit RGB, the same for training and for prediction."""

from __future__ import annotations

import io
import re
import struct
import threading
import warnings
from pathlib import Path

from PIL import ExifTags, Image, ImageFile

from tl_kit.config import DecodeConfig
from tl_kit.data.colour import to_rgb
from tl_kit.errors import ImageError

__all__ = ["FORMATS", "check_header", "decode", "sniff"]

# Formats that Pillow decodes itself. EPS and its like start another program, so they are not here.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "ICO", "AVIF", "JPEG2000")
_WEAK_SIGNATURE = ("BMP", "PPM", "ICO")  # so short that ordinary text can start with it
_FOREIGN = (
    (4, b"ftyphei", "HEIC"),
    (4, b"ftypmif1", "HEIF"),
    (0, b"8BPS", "Photoshop"),
    (0, b"%!PS", "PostScript"),
    (0, b"%PDF", "PDF"),
    (0, b"<svg", "SVG"),
)
_DEFAULT = DecodeConfig()
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PILLOW = re.compile(r"PIL\.")
_hush_lock = threading.Lock()

Image.init()


def decode(
    source: Path | bytes | Image.Image, *, min_side: int | None = None, config: DecodeConfig = _DEFAULT
) -> Image.Image:
    """Decode one image to mode RGB, 8 bits a channel, upright.

    The content decides the format, not the file's ending. EXIF orientation is applied, alpha and transparent colours
    are composited onto white, 16-bit samples keep their high byte, and of an animation the first frame is taken.
    An opened Pillow image is taken at the frame where it stands, and is not changed.

    ``min_side`` (pixels): a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size (the DCT scaling of libjpeg) as long
    as its short side stays at least ``2 * min_side``, enough for any resize to ``min_side`` that follows.

    Raises :class:`ImageError` with a short reason that does not name the file. Safe to call from many threads.
    """
    _hush_pillow()
    try:
        image = source if isinstance(source, Image.Image) else _open(_read(source), config)
        _check_size(image, config)
        if min_side is not None and image is not source and image.format in ("JPEG", "MPO"):
            image.draft(None, (2 * min_side, 2 * min_side))
        image.load()
        turn = _TURNS.get(_orientation(image))
        image = to_rgb(image)
        return image if turn is None else image.transpose(turn)
    except ImageError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly every built-in exception on damaged data
        raise ImageError(_reason(error)) from error


def check_header(data: bytes, *, config: DecodeConfig = _DEFAULT) -> None:
    """Read an image's header, without its pixels. Raises :class:`ImageError` as :func:`decode` does."""
    _hush_pillow()
    try:
        _check_size(_open(data, config), config)
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(_reason(error)) from error


def sniff(prefix: bytes) -> bool:
    """Whether a file that starts with these (16 or more) bytes may be an image of one of :data:`FORMATS`."""
    return any(_accepts(name, prefix[:16].ljust(16, b"\0")) for name in FORMATS)


def _read(source: Path | bytes) -> bytes:
    if isinstance(source, bytes):
        return source
    try:
        return Path(source).read_bytes()
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror or error}") from error


def _accepts(name: str, prefix: bytes) -> bool:
    if name not in Image.OPEN:  # this Pillow was built without it
        return False
    accept = Image.OPEN[name][1]
    return accept is not None and accept(prefix) is True


def _open(data: bytes, config: DecodeConfig) -> Image.Image:
    """``Image.open`` without its size check, whose limit is a process-wide global and half of which is a warning."""
    if not data:
        raise ImageError("empty file")
    prefix = data[:16].ljust(16, b"\0")
    accepted = [name for name in FORMATS if _accepts(name, prefix)]
    for name in accepted:
        try:
            image: ImageFile.ImageFile = Image.OPEN[name][0](io.BytesIO(data), "")
        except (SyntaxError, IndexError, TypeError, struct.error):
            continue
        return image
    strong = [name for name in accepted if name not in _WEAK_SIGNATURE]
    if strong:
        raise ImageError(f"damaged: its {strong[0]} header cannot be read")
    foreign = [name for offset, magic, name in _FOREIGN if data.startswith(magic, offset)]
    raise ImageError(f"not an image that can be read ({foreign[0]}): convert it" if foreign else "not an image")


def _check_size(image: Image.Image, config: DecodeConfig) -> None:
    width, height = image.size
    if width * height > config.max_pixels:
        limit = f"decompression bomb limit {config.max_pixels} pixels"
        raise ImageError(f"too large: {width}x{height} pixels, {limit}")


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
    return f"damaged: {text}"


def _hush_pillow() -> None:
    """Ignore warnings that Pillow's own modules raise (corrupt EXIF, malformed MPO): what matters is an error here.

    The filter list belongs to the process and ``catch_warnings`` is not safe among threads, so this one narrow rule
    is put in front where it is not, and stays.
    """
    with _hush_lock:
        first = warnings.filters[0] if warnings.filters else None
        if first is None or first[0] != "ignore" or first[3] != _PILLOW:
            warnings.filterwarnings("ignore", module=_PILLOW.pattern)

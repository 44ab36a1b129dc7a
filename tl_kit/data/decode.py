"""The one image decoder: whatever Pillow can read, as 8-bit RGB, the same for training and for prediction."""

from __future__ import annotations

import hashlib
import io
import stat
import struct
from pathlib import Path

from PIL import ExifTags, Image, ImageFile

from tl_kit.config import DecodeConfig
from tl_kit.data.colour import to_rgb
from tl_kit.data.limits import check_scans, check_size, most_bytes
from tl_kit.data.quiet import hush_pillow
from tl_kit.errors import ImageError

__all__ = ["CHANGED", "FORMATS", "check_header", "decode", "open_header", "read_file", "read_sample", "sniff"]

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
_LONGEST_REASON = 100
CHANGED = "the file changed since the scan"

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
    hush_pillow()
    try:
        data = read_file(source, config) if isinstance(source, Path) else source
        image = _open(data, config) if isinstance(data, bytes) else data
        check_size(image, config)
        if min_side is not None and image is not source and image.format in ("JPEG", "MPO"):
            image.draft(None, (2 * min_side, 2 * min_side))
        image.load()
        check_size(image, config)  # an icon may hold a larger picture than its header says
        turn = _TURNS.get(_orientation(image))
        image = to_rgb(image)
        return image if turn is None else image.transpose(turn)
    except ImageError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly every built-in exception on damaged data
        raise ImageError(_reason(error)) from error


def check_header(data: bytes, *, config: DecodeConfig = _DEFAULT) -> None:
    """Read an image's header, without its pixels. Raises :class:`ImageError` as :func:`decode` does."""
    open_header(data, config=config)


def open_header(data: bytes, *, config: DecodeConfig = _DEFAULT) -> Image.Image:
    """An image whose pixels are not decoded yet: format, size and metadata. Raises as :func:`check_header` does."""
    hush_pillow()
    try:
        image = _open(data, config)
        check_size(image, config)
        return image
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(_reason(error)) from error


def read_file(path: Path, config: DecodeConfig = _DEFAULT) -> bytes:
    """The bytes of a file; of one that does not begin like an image, the first 16.

    Raises :class:`ImageError` if it cannot be read, is empty, no regular file (a pipe would wait for ever), or longer
    than ``config.max_pixels`` pixels can be.
    """
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("is a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file")
        with Path(path).open("rb") as stream:
            data = stream.read(16)
            if not sniff(data):
                return data
            if status.st_size > most_bytes(config):
                raise ImageError(f"too large: {status.st_size} bytes, at most {most_bytes(config)} are read")
            return data + stream.read()
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise ImageError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error


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
    """Whether a file that starts with these (16 or more) bytes may be an image of one of :data:`FORMATS`."""
    return any(_accepts(name, prefix[:16].ljust(16, b"\0")) for name in FORMATS)


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
        if name == "JPEG":
            check_scans(data, config)
        return image
    strong = [name for name in accepted if name not in _WEAK_SIGNATURE]
    if strong:
        raise ImageError(f"damaged: its {strong[0]} header cannot be read")
    foreign = [name for offset, magic, name in _FOREIGN if data.startswith(magic, offset)]
    raise ImageError(f"not an image that can be read ({foreign[0]}): convert it" if foreign else "not an image")


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
    return f"damaged: {text if len(text) <= _LONGEST_REASON else text[:_LONGEST_REASON] + '…'}"

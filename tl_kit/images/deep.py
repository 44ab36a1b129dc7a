"""Deep images: samples of more than 8 bits, all of their bits, and the 8-bit levels that they become."""

from __future__ import annotations

import io
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tl_kit.images.planes import is_planar

__all__ = [
    "BYTES",
    "GREY_ALPHA",
    "KINDS",
    "WHITE",
    "Deep",
    "SampleRanges",
    "as_text",
    "deep_kind",
    "first_of",
    "levels",
    "lies_outside",
    "outside_warning",
    "raw_arguments",
    "reads_by_type",
]

KINDS = ("uint16", "int16", "int32", "uint32", "float32", "scaled")
"""Types of samples. ``scaled``: the file says which value is white (PGM of 4095, 12-bit TIFF); 65535 is made of it."""

_INTEGERS = ("uint16", "int16", "int32", "uint32")
_BLOCK = 2**20  # samples that are turned into float64 at a time
_LOOKED_AT = 2**17  # samples of an image that tell whether it lies outside a range
_MOST_FILLS, _FILL = 3, 0.1  # values, and the share of an image from which on one is a fill
WHITE = 65535
GREY_ALPHA = "LA;16B"
_Bounds: TypeAlias = tuple[float, float]

# The unpackers of Pillow that give the high and the low byte of the same samples.
BYTES = {
    f"{mode};16{order}": (f"{mode.upper()};16{high}", f"{mode.upper()};16{low}")
    for mode in ("RGB", "RGBX", "RGBA", "RGBa")
    for order, high, low in (
        ("B", "B", "L"),
        ("L", "L", "B"),
        ("N", *(("L", "B") if sys.byteorder == "little" else ("B", "L"))),
    )
}


class Deep(NamedTuple):
    """The ``kind`` of a deep image that was read; ``outside``: the range that most of its samples lay outside of."""

    kind: str
    outside: _Bounds | None = None


@dataclass(frozen=True)
class SampleRanges:
    """``(kind, low, high)`` for each of :data:`KINDS` that a model's training images had: which values it was shown."""

    bounds: tuple[tuple[str, float, float], ...]

    @classmethod
    def of(cls, ranges: Mapping[str, _Bounds]) -> SampleRanges:
        """Make it from ``(low, high)`` by kind."""
        return cls(tuple((kind, float(ranges[kind][0]), float(ranges[kind][1])) for kind in sorted(ranges)))

    def to_dict(self) -> dict[str, list[float]]:
        """Plain JSON: ``[low, high]`` by kind."""
        return {kind: [_plain(low), _plain(high)] for kind, low, high in self.bounds}

    def get(self, kind: str) -> _Bounds | None:
        """Return the range of values of a pixel type; an integer type that has none takes another integer type's."""
        found = {name: (low, high) for name, low, high in self.bounds}
        others = [name for name in _INTEGERS if name in found] if kind in _INTEGERS else []
        return found.get(kind) or (found[others[0]] if others else None)


def as_text(low: float, high: float) -> str:
    """A range as users read it: ``0..4095``."""
    return f"{_short(low)}..{_short(high)}"


def _short(value: float) -> str:
    return str(int(value)) if float(value).is_integer() and abs(value) < 2**33 else f"{value:.4g}"


def _plain(value: float) -> float:
    return int(value) if float(value).is_integer() and abs(value) < 2**53 else value


def reads_by_type(kind: str) -> str:
    """The values over which a kind is read where no range is known."""
    return f"0..{WHITE}" if kind in ("uint16", "scaled") else "each image's own values"


def deep_kind(image: Image.Image) -> str | None:
    """The kind of an opened image's samples; None where they have 8 bits or fewer."""
    raw, *rest = raw_arguments(image)
    if image.mode == "F":
        return "float32"
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _integer_kind(image, raw, rest)
    if image.format == "PPM":
        white = rest[0] if rest else 0
        return None if white <= 255 else "uint16" if white == WHITE else "scaled"
    planar = is_planar(image) and image.mode in ("RGB", "RGBA")
    return "uint16" if planar or raw in BYTES or raw == GREY_ALPHA else None


def _integer_kind(image: Image.Image, raw: str, rest: list[Any]) -> str:
    tags = getattr(image, "tag_v2", None)
    if image.format == "PPM":
        known = image.mode != "I" or raw != ""  # once it is loaded, Pillow no longer says which value is white
        return "uint16" if known and (not rest or rest[0] in (0, WHITE)) else "scaled"
    if tags is not None and image.format == "TIFF":
        bits, form = first_of(tags.get(258, 16)), first_of(tags.get(339, 1))
        if image.mode == "I":
            return "int16" if bits == 16 else "int32" if form == 2 else "uint32"
        return "scaled" if bits == 12 else "uint16"
    if image.format == "JPEG2000":
        return "uint16" if _depth_of_jpeg2000(image) in (0, 16) else "scaled"
    return "int32" if image.mode == "I" and image.format != "PNG" else "uint16"


def _depth_of_jpeg2000(image: Image.Image) -> int:
    """Bits a sample, from the codestream's header; 0 where it cannot be found. Pillow makes 16 of them."""
    stream = getattr(image, "fp", None)
    if not isinstance(stream, io.BytesIO):
        return 0
    data = stream.getvalue()
    at = data.find(b"\xff\x4f\xff\x51") + 42  # behind the sizes of image and tiles, and the number of components
    return (data[at] & 127) + 1 if 42 <= at < len(data) else 0


def first_of(value: Any) -> Any:
    """The first of several values of a tag, or the only one."""
    return value[0] if isinstance(value, tuple) and value else value


def raw_arguments(image: Image.Image) -> tuple[Any, ...]:
    """The raw mode of an opened image's first tile, and what stands behind it; empty text once it is loaded."""
    tiles = getattr(image, "tile", None)
    if not tiles:
        return ("",)
    arguments = tiles[0].args
    return arguments if isinstance(arguments, tuple) and arguments else (arguments or "",)


def lies_outside(samples: NDArray[Any], bounds: _Bounds) -> bool:
    """True where more than half of the samples (n,) lie outside of ``bounds``, but for single values that are frequent.

    Such a value is the fill of an empty margin, of which there may be several.
    """
    some = samples[:: max(1, len(samples) // _LOOKED_AT) | 1]
    with np.errstate(invalid="ignore"):
        beyond = some[(some < bounds[0]) | (some > bounds[1])]
    if 2 * len(beyond) <= len(some):
        return False
    counts = np.sort(np.unique(beyond, return_counts=True)[1])[-_MOST_FILLS:]
    fills = int(counts[counts > _FILL * len(some)].sum())
    return 2 * (len(beyond) - fills) > len(some) - fills


def outside_warning(deep: Counter[Deep]) -> str | None:
    """A warning about images that lie outside a model's range; None if there are none."""
    found = {facts: number for facts, number in sorted(deep.items(), key=str) if facts.outside is not None}
    count = sum(found.values())
    if not count:
        return None
    known = ", ".join(dict.fromkeys(as_text(*facts.outside) for facts in found if facts.outside is not None))
    lie, their = ("image lies", "its") if count == 1 else ("images lie", "their")
    return (
        f"warning: {count:,} {lie} outside the values that the model was trained on ({known}): most of {their} pixels "
        "are plain black or white to it; check the camera's setting, or how they were saved"
    )


def unknown_warning(deep: Counter[Deep], known: Sequence[SampleRanges | None]) -> str | None:
    """A warning about images of kinds for which a model has no range; None if there are none.

    ``known``: the ranges of each member of the model, by kind.
    """
    kinds = Counter[str]()
    for (kind, _), count in deep.items():
        kinds[kind] += count
    lacking = {k: n for k, n in kinds.items() if any(ranges is None or ranges.get(k) is None for ranges in known)}
    if not lacking:
        return None
    count = sum(lacking.values())
    many = "1 image has" if count == 1 else f"{count:,} images have"
    whose = "the model" if len(known) == 1 else "a member"
    over = ", ".join(f"{kind} over {reads_by_type(kind)}" for kind in sorted(lacking))
    return (
        f"warning: {many} more than 8 bits a sample, and {whose} knows no range for them (it was trained on "
        f"8-bit images, or by an earlier version): they are read as {over}"
    )


def levels(samples: NDArray[Any], bounds: _Bounds) -> NDArray[np.uint8]:
    """Samples of any shape as 0..255: clipped to ``bounds`` and stretched. NaN is the lowest level.

    Of bounds 0 to 2^k - 1, k of 8 or more, the highest 8 of k bits are kept, as a full-range 16-bit image keeps its
    high byte; floats of 0..255 are rounded.
    """
    table: NDArray[np.uint8] | None = None
    if samples.dtype in (np.dtype(np.uint16), np.dtype(np.int16)):
        table = _scaled(np.arange(2**16).astype(np.uint16).view(samples.dtype), bounds)
    found = np.empty(samples.shape, np.uint8)
    rows = max(1, _BLOCK // max(1, int(np.prod(samples.shape[1:]))))
    for start in range(0, len(samples), rows):
        some = samples[start : start + rows]
        found[start : start + rows] = _scaled(some, bounds) if table is None else table[some.view(np.uint16)]
    return found


def _scaled(samples: NDArray[Any], bounds: _Bounds) -> NDArray[np.uint8]:
    low, high = bounds
    with np.errstate(all="ignore"):  # a signalling NaN; bounds that nearly meet
        wide = np.clip(samples.astype(np.float64), low, high) - low
        if samples.dtype.kind in "iu" or (low == 0 and high >= 255 and float(np.log2(high + 1)).is_integer()):
            wide = np.floor((wide + 0.5) * (256 / (high - low + 1)))
        else:
            wide = np.rint(wide * (255 / (high - low)))
    return np.clip(np.nan_to_num(wide, copy=False), 0, 255).astype(np.uint8)

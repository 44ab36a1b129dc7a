"""What a safetensors file holds, read from its header alone, and whether its numbers are finite.

The format (https://github.com/huggingface/safetensors): eight bytes, the length of the header, little-endian; the
header in JSON, a type, a shape and a place for every name; the tensors' bytes, without gaps.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tl_kit.errors import TlKitError

__all__ = ["Entry", "check_finite", "read_header"]

_LONGEST_HEADER = 100_000_000  # bytes; the safetensors library's own bound
_CHUNK = 1 << 24
_TYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
# Unsigned integers as wide as the number, and the bits of the exponent: all set means NaN or infinity.
_EXPONENTS: Mapping[str, tuple[type[np.unsignedinteger[Any]], int]] = {
    "F64": (np.uint64, 0x7FF << 52),
    "F32": (np.uint32, 0xFF << 23),
    "F16": (np.uint16, 0x1F << 10),
    "BF16": (np.uint16, 0xFF << 7),
}


@dataclass(frozen=True)
class Entry:
    """One tensor: its type, shape, and its bytes' place in the file."""

    kind: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def dtype(self) -> torch.dtype:
        return _TYPES[self.kind]


def read_header(path: Path, *, error: type[TlKitError]) -> dict[str, Entry]:
    """Every tensor of a safetensors file by name, without reading one.

    Raises ``error``, in one line that names the file, unless the entries cover the file exactly: a header that is
    longer than the file, a name that stands twice, a shape that does not fit its bytes, bytes outside the file or in
    two tensors, a type that a network's weights do not have.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, _LONGEST_HEADER):
                raise error(f"{path}: not a safetensors file, or damaged (its header does not fit into the file)")
            text = file.read(length)
        entries = _entries(text, size, first=8 + length)
    except OSError as failure:
        raise error(f"{path}: cannot be read ({failure.strerror or failure})") from failure
    except RecursionError as failure:
        raise error(f"{path}: not a safetensors file, or damaged (its header is nested too deeply)") from failure
    except (ValueError, MemoryError) as failure:
        raise error(f"{path}: not a safetensors file, or damaged ({failure})") from failure
    return entries


def _entries(text: bytes, size: int, *, first: int) -> dict[str, Entry]:
    content = json.loads(text.decode("utf-8"), object_pairs_hook=_unique)
    if not isinstance(content, dict):
        raise ValueError("its header is no JSON object")
    content.pop("__metadata__", None)
    entries = {name: _entry(name, value, first) for name, value in content.items()}
    place = first
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].stop)):
        if entry.start != place:
            raise ValueError(f"the bytes of {name} do not follow those before them")
        place = entry.stop
    if place != size:
        raise ValueError(f"its tensors take {place - first:,} bytes, the file has {size - first:,}")
    return entries


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name[:80]} stands twice in its header")
        found[name] = value
    return found


def _entry(name: str, value: object, first: int) -> Entry:
    found: dict[str, Any] = value if isinstance(value, dict) else {}
    shape, place, kind = _counts(found.get("shape")), _counts(found.get("data_offsets")), found.get("dtype")
    if shape is None or place is None or len(place) != 2:
        raise ValueError(f"{name[:80]} has no shape or place in its header")
    if not isinstance(kind, str) or kind not in _TYPES:
        raise ValueError(f"{name[:80]} has the type {str(kind)[:20]!r}, which weights do not have")
    if math.prod(shape) * _TYPES[kind].itemsize != place[1] - place[0]:
        raise ValueError(f"the shape of {name[:80]} does not fit its bytes")
    return Entry(kind, shape, first + place[0], first + place[1])


def _counts(value: object) -> tuple[int, ...] | None:
    """The numbers of a short list of non-negative ones; None for anything else."""
    if not isinstance(value, list) or len(value) > 64 or not all(type(item) is int and item >= 0 for item in value):
        return None
    return tuple(value)


def check_finite(path: Path, entries: Mapping[str, Entry], *, error: type[TlKitError]) -> None:
    """Raises ``error``, naming the tensors, where the file holds NaN or infinity.

    The file is read in pieces of 16 MB: tensors that are mapped into memory stay out of it.
    """
    broken = []
    try:
        with path.open("rb") as file:
            for name, entry in sorted(entries.items(), key=lambda item: item[1].start):
                if entry.kind in _EXPONENTS and not _finite(file, entry):
                    broken.append(name)
    except OSError as failure:
        raise error(f"{path}: cannot be read ({failure.strerror or failure})") from failure
    if broken:
        more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        raise error(f"{path}: the tensor {broken[0]}{more} holds NaN or infinity, so it predicts nothing; train again")


def _finite(file: Any, entry: Entry) -> bool:
    number, mask = _EXPONENTS[entry.kind]
    exponent = number(mask)
    file.seek(entry.start)
    left = entry.stop - entry.start
    while left:
        piece: NDArray[Any] = np.frombuffer(file.read(min(left, _CHUNK)), dtype=number)
        if not len(piece) or bool(((piece & exponent) == exponent).any()):
            return False
        left -= piece.nbytes
    return True

"""Header of a safetensors file, checked by the library before a tensor is read; and a check for finite numbers.

The format (https://github.com/huggingface/safetensors): eight bytes, the length of the header, little-endian; the
header in JSON, with a type, a shape and a position for every name; the tensors' bytes, without gaps.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from tl_kit.errors import TlKitError, first_line

__all__ = ["Entry", "check_finite", "read_header"]

_LONGEST_REASON = 200  # characters of the library's message, which may quote the file
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
# Unsigned integers of the number's width, and the exponent bits: if all are set, the number is NaN or infinity.
_EXPONENTS: Mapping[str, tuple[type[np.unsignedinteger[Any]], int]] = {
    "F64": (np.uint64, 0x7FF << 52),
    "F32": (np.uint32, 0xFF << 23),
    "F16": (np.uint16, 0x1F << 10),
    "BF16": (np.uint16, 0xFF << 7),
}


@dataclass(frozen=True)
class Entry:
    """One tensor: its type, its shape, and the position of its bytes in the file."""

    kind: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def dtype(self) -> torch.dtype:
        return _TYPES[self.kind]


def read_header(path: Path, *, error: type[TlKitError]) -> dict[str, Entry]:
    """The entries of a safetensors file's tensors by name, without reading any tensor.

    Raises ``error``, in one line that names the file, unless the library finds that the entries cover the file exactly.
    Also raises it for two faults that the library accepts: a duplicate name, and a type that a network's weights do not
    have.
    """
    try:
        with safe_open(str(path), framework="numpy"):  # reads only the header
            pass
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            content = json.loads(file.read(length), object_pairs_hook=_unique)
        content.pop("__metadata__", None)
        return {name: _entry(name, value, 8 + length) for name, value in content.items()}
    except OSError as failure:
        raise error(f"{path}: cannot be read ({failure.strerror or failure})") from failure
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError, MemoryError) as failure:
        raise error(
            f"{path}: not a safetensors file, or damaged ({first_line(failure)[:_LONGEST_REASON]})"
        ) from failure


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name[:80]} stands twice in its header")
        found[name] = value
    return found


def _entry(name: str, value: Mapping[str, Any], first: int) -> Entry:
    if value["dtype"] not in _TYPES:
        raise ValueError(f"{name[:80]} has the type {value['dtype']}, which weights do not have")
    start, stop = value["data_offsets"]
    return Entry(value["dtype"], tuple(value["shape"]), first + start, first + stop)


def check_finite(path: Path, entries: Mapping[str, Entry], *, error: type[TlKitError]) -> None:
    """Raises ``error``, naming a tensor, if the file contains NaN or infinity.

    The file is read in pieces of 16 MB, so that memory-mapped tensors stay out of memory.
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

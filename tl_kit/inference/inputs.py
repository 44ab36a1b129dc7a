"""Inputs of ``predict``: every accepted form, turned into sources that can be decoded."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from tl_kit.config import DecodeConfig
from tl_kit.errors import InputError
from tl_kit.images.limits import most_bytes
from tl_kit.inference.run_models import Source
from tl_kit.inference.streaming.addresses import is_address
from tl_kit.inference.streaming.named import Named
from tl_kit.inference.streaming.path_list import PathList

__all__ = ["TAKEN", "Given", "named_sources", "paths", "sources"]

Given: TypeAlias = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | Image.Image | NDArray[Any] | Tensor
)
"""One image; see :data:`TAKEN`."""

TAKEN = (
    "predict takes a path, the bytes of an image file, a file opened in binary mode, a Pillow image, a uint8 array "
    "(h, w), (h, w, 3) or (h, w, 4), a uint8 tensor (h, w), (1, h, w), (3, h, w) or (4, h, w), an iterable of these, "
    "or a uint8 array (n, h, w, c) or tensor (n, c, h, w)"
)

_CHANNELS = (1, 3, 4)
_PIECE = 2**20
_LONGEST = 100


def sources(given: Given | Iterable[Given], limits: DecodeConfig = DecodeConfig()) -> tuple[list[Source], list[str]]:
    """Every given image, and its name: the path, or the number from 0 and the type.

    Raises InputError for anything else; the message says what is accepted and what was given. Nothing is decoded.
    """
    single = _source(given, "", limits)
    if single is not None:
        return [single], [_name(given, single, 0)]
    pairs = list(_many(given, limits))
    return [source for source, _ in pairs], [name for _, name in pairs]


def named_sources(given: Given | Iterable[Given], limits: DecodeConfig = DecodeConfig()) -> Iterator[Named]:
    """:func:`sources`, one after the other; each is taken from the iterable when it is asked for."""
    single = _source(given, "", limits)
    pairs = _many(given, limits) if single is None else [(single, _name(given, single, 0))]
    return (Named(name, source) for source, name in pairs)


def _many(given: Any, limits: DecodeConfig) -> Iterator[tuple[Source, str]]:
    for index, item in enumerate(_items(given)):
        source = _source(item, f"image {index} is ", limits)
        if source is None:
            pair = ": of images and labels give the images alone" if isinstance(item, (tuple, list)) else ""
            raise _refusal(f"image {index} is {_what(item)}{pair}")
        yield source, _name(item, source, index)


def paths(given: Any) -> list[str | os.PathLike[str] | PathList]:
    """A path or a list of paths in a file, or an iterable of them, as a list. Raises InputError for anything else."""
    single = isinstance(given, (str, os.PathLike, Mapping, PathList)) or not isinstance(given, Iterable)
    items = [given] if single else list(given)
    for item in items:
        if isinstance(item, PathList):
            continue
        if not isinstance(item, (str, os.PathLike)):
            raise InputError(
                f"this is {_what(given)}: here files and folders are predicted, by their paths; pixels and open files "
                "with tl_kit.load(checkpoint).predict"
            )
        if not os.fspath(item):
            raise InputError("an empty path is given: name image files, or folders that hold some")
    return items


def _source(item: object, place: str, limits: DecodeConfig) -> Source | None:
    """The source of one image; None if the item may hold several. ``place`` is the beginning of an error message."""
    if isinstance(item, (str, os.PathLike)):
        return _path(item, place)
    if isinstance(item, (bytes, bytearray, memoryview)):
        return bytes(item)
    if isinstance(item, Image.Image):
        return item
    if isinstance(item, (np.ndarray, Tensor)):
        return _pixels(item, place)
    return _read(item, place, limits) if callable(getattr(item, "read", None)) else None


def _items(given: Any) -> Iterator[Any]:
    """The images of a batch, or of an iterable."""
    if isinstance(given, Tensor):
        return iter(given.detach())
    if isinstance(given, np.ndarray):
        return iter(given)
    keyed = hasattr(given, "keys") and getattr(given, "ndim", 0) != 1  # a Series has keys too, but is a column
    if isinstance(given, Mapping) or keyed or not isinstance(given, Iterable):
        raise _refusal(f"this is {_what(given)}")
    return iter(given)


def _path(item: str | os.PathLike[Any], place: str) -> Path:
    text = os.fsdecode(item)
    if not text.strip():
        raise _refusal(f"{place or 'this is '}an empty path")
    if is_address(text) and not os.path.lexists(text):
        raise InputError(f"{place}{text[:_LONGEST]}: an address, and predict reads files: download it, give its path")
    return Path(text)


def _pixels(item: NDArray[Any] | Tensor, place: str) -> Source | None:
    """An array or tensor of one image as (h, w, c) or (h, w) on the CPU; None for a batch or an array of paths."""
    values: NDArray[Any]
    if isinstance(item, Tensor):
        if item.dtype != torch.uint8 or item.layout != torch.strided or item.is_meta:
            raise _unfit(item, place)
        values, axis = item.detach().cpu().as_subclass(Tensor).numpy(), -3
    else:
        if item.dtype.kind in "UO":
            return _texts(item, place)
        if item.dtype != np.uint8 or isinstance(item, np.ma.MaskedArray):
            raise _unfit(item, place)
        values, axis = item, -1
    if values.ndim == 4 and not place and (values.shape[axis] in _CHANNELS or not len(values)):
        return None
    if values.ndim == 3 and values.shape[axis] in _CHANNELS:
        values = np.moveaxis(values, axis, -1)
        values = values[..., 0] if values.shape[-1] == 1 else values
    elif values.ndim != 2:
        raise _unfit(item, place)
    if not values.size:
        raise _refusal(f"{place or 'this is '}{_what(item)}, without pixels")
    return values


def _texts(item: NDArray[Any], place: str) -> Source | None:
    """The one image in an array of texts or objects without dimensions; None if the array holds several."""
    single = _source(item.item(), place, DecodeConfig()) if item.ndim == 0 else None
    if single is not None or (item.ndim == 1 and not place):
        return single
    raise _refusal(f"{place or 'this is '}{_what(item)}")


def _read(item: Any, place: str, limits: DecodeConfig) -> bytes:
    """The bytes of an open file from its current position."""
    name = f"{place or 'this is '}{_what(item)}"
    if isinstance(item, io.TextIOBase):
        raise _refusal(f"{name}, opened as text: open it with mode 'rb'")
    most, pieces, size = most_bytes(limits), [], 0
    try:
        while size <= most:
            piece = item.read(_PIECE)
            if not isinstance(piece, (bytes, bytearray, memoryview)):
                with suppress(AttributeError):
                    piece.close()  # of an asynchronous file: a coroutine that nothing awaits
                raise _refusal(f"{name}, whose read() gives {type(piece).__name__} instead of bytes")
            if not piece:
                break
            pieces.append(bytes(piece))
            size += len(piece)
    except (OSError, ValueError) as error:
        raise InputError(f"{name}, which cannot be read: {error}") from error
    if size > most:
        raise InputError(f"{name}, too large: at most {most} bytes are read")
    if not size and _stands_behind(item):
        raise InputError(f"{name}, which has been read to its end: call seek(0) first")
    return b"".join(pieces)


def _stands_behind(item: Any) -> bool:
    """True if an open file at its end has bytes before its current position."""
    try:
        return bool(item.tell() > 0)
    except (AttributeError, OSError, ValueError):
        return False


def _name(item: object, source: Source, index: int) -> str:
    return str(source) if isinstance(source, Path) else f"image {index} ({type(item).__name__})"


def _what(item: object) -> str:
    """A description of a value: its type and, for arrays, the dtype and the shape."""
    if item is None:
        return "None"
    kind = type(item).__name__
    if isinstance(item, (np.ndarray, Tensor)):
        dtype = str(item.dtype).removeprefix("torch.")
        return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind} of {dtype} {tuple(item.shape)}"
    return f"{'an' if kind[0].lower() in 'aeiou' else 'a'} {kind}"


def _advice(item: NDArray[Any] | Tensor) -> str:
    """Advice on how to turn the array into an image, if it can be guessed."""
    tensor, shape = isinstance(item, Tensor), tuple(item.shape)
    kind = str(item.dtype).removeprefix("torch.")
    if kind == "uint8" and len(shape) == 1:
        return ": of an encoded image give the bytes, .tobytes()" if not tensor else ": give the bytes"
    if kind == "uint8" and len(shape) in (3, 4) and tensor and shape[-1] in _CHANNELS:
        return ": channels come first, " + (".permute(2, 0, 1)" if len(shape) == 3 else ".permute(0, 3, 1, 2)")
    if kind == "uint8" and len(shape) in (3, 4) and not tensor and shape[-3] in _CHANNELS:
        return ": channels come last, " + (".transpose(1, 2, 0)" if len(shape) == 3 else ".transpose(0, 2, 3, 1)")
    if kind.startswith(("float", "bfloat")):
        return ": numbers from 0 to 1 become an image as " + (
            "(255 * x).round().to(torch.uint8)" if tensor else "numpy.rint(255 * x).astype(numpy.uint8)"
        )
    if kind == "uint16":
        return ": bring its range to 0..255 first, or save it as a 16-bit PNG and give the path"
    return ""


def _unfit(item: NDArray[Any] | Tensor, place: str) -> InputError:
    many = ": a batch among other images; give it by itself" if place and item.ndim == 4 else _advice(item)
    return _refusal(f"{place or 'this is '}{_what(item)}{many}")


def _refusal(what: str) -> InputError:
    return InputError(f"{what}; {TAKEN}")

"""Images as estimators are given them: sources that can be decoded, and files that a run can read."""

from __future__ import annotations

import io
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from tl_kit.errors import InputError, SamplesError
from tl_kit.images.decode import decode
from tl_kit.images.deep import WHITE, deep_kind
from tl_kit.images.samples import file_of
from tl_kit.inference.inputs import TAKEN, sources
from tl_kit.inference.run_models import Source

__all__ = ["GIVEN", "images_of", "may_be_deep", "source_name", "write_source"]

_COLOURS = (3, 4)
GIVEN = (
    "an estimator takes image files by their paths, Pillow images, or an array (n, h, w), (n, h, w, 3) or (n, h, w, 4) "
    "of uint8, or (n, h, w) or (n, h, w, 3) of uint16"
)


def images_of(given: Any, name: str = "X") -> list[Source]:
    """The images of ``X``, in order: paths, bytes of image files, 8-bit Pillow images, or uint8 arrays.

    Images of more than 8 bits a sample become bytes of a file, so that the decoder treats them as one.

    Raises InputError, a TypeError, for values that are no images; SamplesError, a ValueError, for a table of numbers,
    for paths none of which exists, and for no images at all. Nothing is decoded.
    """
    items = [_plain(item, f"{name}[{index}]") for index, item in enumerate(_items(given, name))]
    if not items:
        raise SamplesError(f"{name}: Found array with 0 sample(s), while a minimum of 1 is required")
    try:
        found, _ = sources(items)
    except InputError as error:
        raise InputError(_reworded(str(error), name)) from None
    paths = [source for source in found if isinstance(source, Path)]
    if len(paths) == len(found) and not any(map(os.path.lexists, paths)):
        others = ", and none at any other of the paths" if len(paths) > 1 else ""
        raise SamplesError(f"{source_name(paths[0], 0, name)}: no such file{others}")
    return [_eight_bits(source) for source in found]


def _reworded(text: str, name: str) -> str:
    """The text of an error of :func:`sources`, which speaks of predict, in an estimator's words."""
    text = text.replace(TAKEN, GIVEN).replace("and predict reads files", "and files are read here")
    return re.sub(r"^image (\d+) is ", rf"{name}[\1] is ", text)


def source_name(source: Source, index: int, name: str = "X") -> str:
    """An image for a message: its path where it has one, and its place in ``X``."""
    return f"{name}[{index}] ({source})" if isinstance(source, Path) else f"{name}[{index}]"


def may_be_deep(source: Source) -> bool:
    """True for an image that may have more than 8 bits a sample: a file, or a file's bytes."""
    return isinstance(source, Path | bytes)


def write_source(source: Source, target: Path) -> Path:
    """The path at which a run can read an image without loss: its own, or a new file at ``target``.

    A path that a CSV file cannot hold (blanks at its ends, a line break, bytes that are not UTF-8) is copied.
    """
    if isinstance(source, Path):
        path = source.absolute()
        if _fits_a_cell(str(path)):
            return path
        with suppress(OSError, ValueError):  # the run then finds no file here, and says so
            shutil.copyfile(path, target)
    elif isinstance(source, bytes):
        target.write_bytes(source)
    else:
        picture = Image.fromarray(source) if isinstance(source, np.ndarray) else source
        decode(picture).save(target, format="PNG", compress_level=1)
    return target


def _fits_a_cell(text: str) -> bool:
    return text == text.strip() and text.isprintable()


def _items(given: Any, name: str) -> Sequence[Any] | NDArray[Any]:
    """The images one by one; a column of a table is taken as a sequence."""
    if isinstance(given, str | bytes | os.PathLike | Mapping | Image.Image) or given is None:
        raise InputError(f"{name} is one {type(given).__name__}, and must be a list of images; {GIVEN}")
    if hasattr(given, "toarray"):
        raise InputError(f"{name} is a sparse matrix, which holds no images; {GIVEN}")
    values = given if isinstance(given, list | tuple | np.ndarray) else np.asarray(given)
    if isinstance(values, np.ndarray) and values.ndim == 0:  # of a generator or a set
        raise InputError(f"{name} is one {type(given).__name__}, and must be a list of images; {GIVEN}")
    if isinstance(values, np.ndarray):
        return _rows(values, name)
    if values and not _is_image(values[0]):
        return _rows(_as_array(values, name), name)
    return values


def _as_array(values: Sequence[Any], name: str) -> NDArray[Any]:
    try:
        return np.asarray(values)
    except ValueError:  # rows of several lengths
        raise InputError(f"{name}[0] is a {type(values[0]).__name__}; {GIVEN}") from None


def _is_image(item: Any) -> bool:
    return isinstance(item, str | bytes | os.PathLike | Image.Image | np.ndarray) or hasattr(item, "read")


def _rows(values: NDArray[Any], name: str) -> NDArray[Any] | list[Any]:
    if values.dtype.kind in "UO" and values.ndim == 2 and values.shape[1] == 1:
        return values[:, 0]
    if values.dtype.kind in "UO" and values.ndim == 1:
        return list(values)
    if values.ndim < 3 or values.dtype.kind in "UO":
        shape = f"an array of {values.dtype} {values.shape}"
        if values.dtype.kind == "c":
            raise SamplesError(f"{name}: Complex data not supported; {GIVEN}")
        raise SamplesError(f"{name} is {shape}, which holds no images. Reshape your data; {GIVEN}")
    if values.dtype not in (np.uint8, np.uint16):
        advice = ": numbers from 0 to 1 become images as numpy.rint(255 * X).astype(numpy.uint8)"
        floats = advice if values.dtype.kind == "f" else ""
        raise InputError(f"{name} is an array of {values.dtype} {values.shape}{floats}; {GIVEN}")
    if values.ndim == 3 and values.shape[2] in _COLOURS:
        raise InputError(
            f"{name} is an array of {values.dtype} {values.shape}: of one image give {name}[None]; {GIVEN}"
        )
    return values


def _plain(item: Any, name: str) -> Any:
    """An image that the decoder's inputs take; arrays of 16 bits become files."""
    if isinstance(item, np.ndarray) and item.dtype == np.uint16 and item.size:
        if item.ndim == 3 and item.shape[-1] == 1:
            item = item[..., 0]
        if item.ndim == 2:
            return _png(Image.fromarray(np.ascontiguousarray(item)))
        if item.ndim == 3 and item.shape[-1] == 3:
            header = f"P6\n{item.shape[1]} {item.shape[0]}\n{WHITE}\n".encode("ascii")
            return header + item.astype(">u2").tobytes()
    if isinstance(item, np.ndarray) and item.dtype.kind in "UO" and item.ndim == 0:
        return item.item()
    if not _is_image(item) and not hasattr(item, "numpy"):
        raise InputError(f"{name} is {_what(item)}; {GIVEN}")
    return item


def _what(item: object) -> str:
    return "None" if item is None else f"a {type(item).__name__}"


def _eight_bits(source: Source) -> Source:
    """A Pillow image of more than 8 bits as the bytes of a file; any other source unchanged."""
    if not isinstance(source, Image.Image):
        return source
    whole = file_of(source)
    if whole is not None:
        return whole
    if deep_kind(source) is None or source.mode in ("RGB", "RGBA"):
        return source
    upright = ImageOps.exif_transpose(source)
    return _png(upright) if upright.mode.startswith("I;16") else _file(upright, "TIFF")


def _png(image: Image.Image) -> bytes:
    return _file(image, "PNG", compress_level=1)


def _file(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format=kind, **options)
    return stream.getvalue()

"""Tensors of a weights file, read without executing anything in the file."""

from __future__ import annotations

import argparse
import os
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from timm.models import clean_state_dict

from tl_kit.errors import TlKitError, WeightsError, first_line
from tl_kit.zoo.other_programs import foreign_format
from tl_kit.zoo.safetensors_header import read_header
from tl_kit.zoo.silence_timm import quiet
from tl_kit.zoo.spelling import expanded
from tl_kit.zoo.unwrap import unwrap

__all__ = ["HUB_FILES", "WEIGHT_FILES", "check_archive", "read_state_dict", "read_weights", "weights_file"]

# The file names that timm and the hub write, in order of preference.
HUB_FILES = ("model.safetensors", "pytorch_model.bin")
WEIGHT_FILES = (*HUB_FILES, "pytorch_model.pth", "model.pth")


def weights_file(path: Path) -> Path:
    """Return the file itself, or the weights file of a checkpoint folder. Raises WeightsError if there is none."""
    path = expanded(path)
    if os.path.isfile(path):  # noqa: PTH113 - Path.is_file raises for names that are too long
        return path
    if not os.path.isdir(path):  # noqa: PTH112
        raise WeightsError(f"{path}: no such weights file; --weights takes auto, none, a file or a checkpoint folder")
    if (path / "saved_model.pb").is_file():
        raise WeightsError(f"{path}: a model of TensorFlow's; tl-kit reads PyTorch's and safetensors' tensors")
    found = next((path / name for name in WEIGHT_FILES if (path / name).is_file()), None)
    if found is None:
        raise WeightsError(f"{path}: the folder holds no weights ({', '.join(WEIGHT_FILES)}); name the file itself")
    return found


def read_state_dict(path: Path) -> dict[str, Any]:
    """The tensors of :func:`read_weights`, without the keys that were unwrapped."""
    return read_weights(path)[0]


def read_weights(path: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The tensors in a safetensors file, or in a PyTorch file that contains tensors only, by name, on the CPU.

    Also returns the keys under which they were found (``zoo.unwrap``). The prefixes ``module.`` and ``_orig_mod.`` of
    DistributedDataParallel and torch.compile are removed. Entries that are not tensors are kept for timm's filters.
    Raises WeightsError, in one line that names the file, if it is damaged, contains no tensors, comes from another
    program, or could only be unpickled by running its code.
    """
    foreign = foreign_format(path)
    if foreign is not None:
        raise WeightsError(f"{path}: {foreign}")
    content = _load_safetensors(path) if path.suffix == ".safetensors" else _load_torch(path)
    content, way = unwrap(content, path)
    if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        kind = type(content).__name__
        raise WeightsError(f"{path}: holds a {kind} instead of tensors by name; save model.state_dict()")
    leaves = [leaf for value in content.values() for leaf in _leaves(value)]
    if not any(map(torch.is_tensor, leaves)):
        raise WeightsError(f"{path}: holds no tensors; save model.state_dict()")
    _check_extent(path, leaves)
    return dict(clean_state_dict(dict(content))), way


def _leaves(value: object) -> list[object]:
    return list(value.values()) if isinstance(value, Mapping) else [value]


def _load_safetensors(path: Path) -> object:
    read_header(path, error=WeightsError)
    try:
        return safetensors.torch.load_file(path)
    except Exception as error:
        raise WeightsError(f"{path}: not a safetensors file, or damaged ({first_line(error)})") from error


def _load_torch(path: Path) -> object:
    check_archive(path, error=WeightsError)
    try:
        # timm's own training checkpoints keep their arguments, a plain Namespace, beside the tensors
        with quiet(), torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise WeightsError(f"{path}: {_refusal(str(error))}") from error


def _refusal(text: str) -> str:
    """The reason why torch's restricted unpickler refused a file, without torch's advice to lift the restriction."""
    found = re.search(r"GLOBAL ([\w.]+)", text)
    if found is not None:
        return (
            f"refused, because it holds more than tensors ({found.group(1)}) and loading it could run code; "
            "save model.state_dict() as safetensors"
        )
    for mark, kind in (("legacy .tar", "tar archive"), ("TorchScript", "TorchScript program")):
        if mark in text:
            return f"refused, because it is a {kind}, not tensors by name; save model.state_dict() as safetensors"
    reason = re.search(r"WeightsUnpickler error: (.+)", text)
    said = reason.group(1).strip() if reason else "" if "weights_only" in text else next(iter(text.splitlines()), "")
    return "not a PyTorch file of tensors, or damaged" + (f" ({said})" if said else "")


def check_archive(path: Path, *, error: type[TlKitError]) -> None:
    """Raises ``error`` for an archive that would unpack to more than its own size, which torch never writes."""
    try:
        size = path.stat().st_size
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            content = sum(entry.file_size for entry in archive.infolist())
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as failure:
        raise error(f"{path}: not a PyTorch file, or damaged ({first_line(failure)})") from failure
    if content > size:
        raise error(f"{path}: refused, because it unpacks to {content:,} bytes from {size:,}, as torch's do not")


def _check_extent(path: Path, leaves: Iterable[object]) -> None:
    """Raise WeightsError if a tensor is larger than the file, which is possible if its elements overlap in memory."""
    size = path.stat().st_size
    for leaf in leaves:
        if isinstance(leaf, torch.Tensor) and leaf.numel() * leaf.element_size() > size:
            raise WeightsError(f"{path}: refused, because a tensor of {tuple(leaf.shape)} is larger than the file")

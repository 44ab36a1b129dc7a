"""Reading tensors from a weights file. A file is data: nothing in it is ever executed."""

from __future__ import annotations

import argparse
import hashlib
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from timm.models import clean_state_dict

from tl_kit.errors import WeightsError
from tl_kit.zoo.quiet import quiet

__all__ = ["HUB_FILES", "WEIGHT_FILES", "read_state_dict", "sha256", "weights_file"]

# In the order of preference, as timm and the hub write them.
HUB_FILES = ("model.safetensors", "pytorch_model.bin")
WEIGHT_FILES = (*HUB_FILES, "pytorch_model.pth", "model.pth")
# A training checkpoint's averaged weights are those that its author evaluated.
_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")


def weights_file(path: Path) -> Path:
    """The file itself, or the weights file in a checkpoint folder. Raises WeightsError where there is none."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise WeightsError(f"{path}: no such weights file")
    found = next((path / name for name in WEIGHT_FILES if (path / name).is_file()), None)
    if found is None:
        raise WeightsError(f"{path}: the folder holds no weights ({', '.join(WEIGHT_FILES)}); name the file itself")
    return found


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex. Raises WeightsError where it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from error
    return digest.hexdigest()


def read_state_dict(path: Path) -> dict[str, Any]:
    """The tensors in a safetensors file, or in a PyTorch file that holds tensors only, by name, on the CPU.

    Unwraps ``state_dict_ema``, ``model_ema``, ``state_dict`` and ``model``, and strips the prefixes ``module.`` and
    ``_orig_mod.`` that DistributedDataParallel and torch.compile add. Entries that are no tensors stay, for timm's
    filters to look into. Raises WeightsError, in one line that names the file, for one that is damaged, that holds no
    tensors, or that would have to be unpickled with its code.
    """
    content = _load_safetensors(path) if path.suffix == ".safetensors" else _load_torch(path)
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        kind = type(content).__name__
        raise WeightsError(f"{path}: holds a {kind} instead of tensors by name; save model.state_dict()")
    if not any(torch.is_tensor(leaf) for value in content.values() for leaf in _leaves(value)):
        raise WeightsError(f"{path}: holds no tensors")
    return dict(clean_state_dict(dict(content)))


def _leaves(value: object) -> list[object]:
    return list(value.values()) if isinstance(value, Mapping) else [value]


def _load_safetensors(path: Path) -> object:
    try:
        return safetensors.torch.load_file(path)
    except Exception as error:
        raise WeightsError(f"{path}: not a safetensors file, or damaged ({_first_line(error)})") from error


def _load_torch(path: Path) -> object:
    try:
        # timm's own training checkpoints keep their arguments, a plain Namespace, beside the tensors
        with quiet(), torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        if found is None:
            raise WeightsError(f"{path}: not a PyTorch file of tensors, or damaged") from error
        raise WeightsError(
            f"{path}: refused, because it holds more than tensors ({found.group(1)}) and loading it could run code; "
            "save model.state_dict() as safetensors"
        ) from error
    except Exception as error:
        raise WeightsError(f"{path}: not a PyTorch file, or damaged ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]

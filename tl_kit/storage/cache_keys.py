"""Cache keys of the user's cache: only this module makes them, from everything that a cached value depends on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import PIL
import timm
import torch
import torchvision
from PIL import features
from torch import nn

from tl_kit._version import __version__
from tl_kit.config import DecodeConfig
from tl_kit.images.transforms import Preprocessing
from tl_kit.machine.processor import device_name
from tl_kit.machine.runtime import Runtime
from tl_kit.storage.fingerprint import digest_of, network_settings, network_tensors, plain_fields

__all__ = ["cache_key", "derived_key"]

_FORMAT = 2  # increased when the code that computes rows changes its results
_LENGTH = 32
_CODECS = ("jpg", "libjpeg_turbo", "jpg_2000", "zlib", "libtiff", "webp")


def cache_key(
    model: nn.Module,
    cut: str,
    *,
    order: Sequence[str] = (),
    preprocessing: Preprocessing,
    runtime: Runtime,
    decode: DecodeConfig,
    more: Mapping[str, object],
) -> str:
    """The key of the inputs of a model's module ``cut``: 32 hex digits.

    ``order`` is the forward order of the modules: modules from the cut on influence neither the value nor the key.
    ``more``: everything else that the caller's rows depend on, as plain JSON values. A row's name identifies the image.
    """
    position = order.index(cut) if cut in order else None
    above = {cut} if position is None else set(order[position:]) - set(order[:position])
    parts = {
        "format": _FORMAT,
        "network": network_settings(model, without=above),
        "tensors": network_tensors(model, without=above),
        "cut": cut,
        "preprocessing": plain_fields(preprocessing),
        "decode": {name: value for name, value in plain_fields(decode).items() if not name.startswith("copy_")},
        "runtime": plain_fields(runtime),
        "device": device_name(runtime.device),
        "threads": torch.get_num_threads(),
        "versions": _versions(),
        "more": dict(more),
    }
    return digest_of(parts)[:_LENGTH]


def derived_key(key: str, *more: object) -> str:
    """The key of other values for the same network, images and machine as ``key``."""
    return digest_of([key, *more])[:_LENGTH]


def _versions() -> list[str]:
    """Versions of the libraries that decode images and compute rows."""
    packages = [torch.__version__, timm.__version__, torchvision.__version__, PIL.__version__, __version__]
    return [*map(str, packages), *(f"{name} {features.version(name)}" for name in _CODECS)]

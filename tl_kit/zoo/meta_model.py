"""Meta models: models without memory, built on torch's ``meta`` device, whose tensors have shapes but no values.

An untrusted file may describe a model of any size. The outline gives its size before memory is allocated.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data.config import resolve_model_data_config
from torch import nn
from torch.nn.modules import module as registration

from tl_kit.config import TrustConfig
from tl_kit.errors import TlKitError
from tl_kit.untrusted import sha256
from tl_kit.zoo.model_card import CONFIG
from tl_kit.zoo.safetensors_header import Entry
from tl_kit.zoo.silence_timm import quiet
from tl_kit.zoo.spelling import FOLDER_PREFIX

__all__ = ["Outline", "folder_outline", "outline"]

# Of the last few cards: members of an ensemble often have one, and several runs may begin with one network.
_KEPT = 16
_OUTLINES: OrderedDict[tuple[object, ...], Outline] = OrderedDict()


@dataclass(frozen=True)
class Outline:
    """Names, shapes and dtypes of a model's saved tensors, the bytes of all its tensors, and its number of outputs."""

    tensors: Mapping[str, tuple[tuple[int, ...], torch.dtype]]
    size: int
    outputs: int

    def mismatch(self, entries: Mapping[str, Entry]) -> str | None:
        """The first difference between a file's tensors and the model's, in words; None if there is none."""
        missing = [name for name in self.tensors if name not in entries]
        extra = [name for name in entries if name not in self.tensors]
        if missing or extra:
            parts = [f"{len(missing)} tensors are missing, such as {missing[0]}"] if missing else []
            parts += [f"{len(extra)} have no place in the model, such as {extra[0]}"] if extra else []
            return " and ".join(parts)
        for name, (shape, dtype) in self.tensors.items():
            entry = entries[name]
            if entry.shape != shape:
                return f"{name} is {entry.shape} in the file and {shape} in the model"
            if entry.dtype.is_floating_point != dtype.is_floating_point or entry.dtype.is_complex:
                return f"{name} holds {entry.kind}, the model has {str(dtype).removeprefix('torch.')} there"
        return None


def outline(factory_name: str, *, forward: bool = True, **arguments: Any) -> Outline:
    """Outline of the model that ``timm.create_model`` would build; ``forward`` also runs images of its card's size.

    Raises timm's error if timm cannot build the model, and ValueError for a model with absurdly many layers.
    """
    with quiet(), torch.device("meta"), _limited():
        model = timm.create_model(factory_name, **arguments).eval()
        tensors = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in model.state_dict().items()}
        if forward:
            _try_forward(model)
    everything = [*model.parameters(), *model.buffers()]
    outputs: Any = model.num_classes
    return Outline(tensors, sum(tensor.nbytes for tensor in everything), int(outputs))


def folder_outline(folder: Path, *, error: type[TlKitError], forward: bool = True, **arguments: Any) -> Outline:
    """:func:`outline` of the model that a folder's checked card describes, made once for equal cards.

    Raises ``error`` if the card cannot be read, ValueError if it changes meanwhile, and what :func:`outline` raises.
    """
    key = (_card_digest(folder, error), forward, *sorted(arguments.items()))
    found = _OUTLINES.get(key) or outline(f"{FOLDER_PREFIX}{folder}", forward=forward, **arguments)
    if _card_digest(folder, error) != key[0]:
        raise ValueError("the file changed while it was read")
    _OUTLINES[key] = found
    while len(_OUTLINES) > _KEPT:
        _OUTLINES.popitem(last=False)
    return found


def _card_digest(folder: Path, error: type[TlKitError]) -> str:
    return sha256(folder / CONFIG, error=error)


def _try_forward(model: nn.Module) -> None:
    """Raise if the model cannot process such images. Recurrent models are skipped: their steps run in Python here."""
    if any(isinstance(module, nn.RNNBase) for module in model.modules()):
        return
    size = resolve_model_data_config(model)["input_size"]  # type: ignore[no-untyped-call]
    try:
        with torch.inference_mode():
            model(torch.zeros(2, *size))
    except NotImplementedError:  # an operation missing on this device says nothing about the model
        return


@contextmanager
def _limited() -> Iterator[None]:
    """Raise ValueError as soon as more layers and tensors are registered than any real model has."""
    left = TrustConfig.modules

    def count(*_: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise ValueError(f"more than {TrustConfig.modules:,} layers and tensors")

    hooks = [
        registration.register_module_parameter_registration_hook(count),
        registration.register_module_buffer_registration_hook(count),
        registration.register_module_module_registration_hook(count),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()

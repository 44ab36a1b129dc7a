"""A network's fingerprint: everything besides inputs that determines its outputs, as text, equal for equal networks.

It covers the modules' names, classes and settings, and the tensors that they own. Modules and settings that only act in
training (dropout and its rates) are left out, and so is the number of classes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import lru_cache, partial
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from timm.layers.drop import DropPath
from torch import Tensor, nn

from tl_kit.freezing.audit import tensor_digest
from tl_kit.zoo.heads import in_modules

__all__ = ["digest_of", "network_settings", "network_tensors", "plain_fields"]

_TRAINING_ONLY = (nn.Identity, nn.Dropout, nn.Dropout2d, nn.AlphaDropout, DropPath)
# torch's own attributes of a module: tensors and submodules are handled separately, hooks and the mode have no effect.
_OF_TORCH = frozenset(vars(nn.Module()))
# Origin and name of a network, settings without effect in evaluation, and attributes that a forward pass sets.
_NO_SETTING = ("pretrained_cfg", "default_cfg", "num_classes", "label_names", "grad_checkpointing")
_NO_SETTING_PARTS = ("drop", "cache", "pretrained", "checkpoint")
_COUNTER = "num_batches_tracked"
_LIBRARIES = ("torch", "torchvision", "timm")
_DEEPEST = 8
# Named, since Python would make each union anew for every value.
_AS_IT_IS = bool | str
_NUMBER = int | float | complex | np.generic
_WORD = Enum | torch.dtype | torch.device | torch.memory_format | slice


def network_settings(model: nn.Module, *, without: Collection[str] = ()) -> str:
    """SHA-256 of the modules, in order: name, class and every setting; ``without`` these modules and all inside them.

    For classes that are not from torch, torchvision or timm, the code counts too, because no version identifies it.
    """
    rows = [
        [name, _class(type(module)), module.extra_repr(), _settings(vars(module), 0)]
        for name, module in model.named_modules()
        if not isinstance(module, _TRAINING_ONLY) and not in_modules(f"{name}.", without)
    ]
    return digest_of(rows)


def network_tensors(model: nn.Module, *, without: Collection[str] = ()) -> dict[str, str]:
    """Digests, by name, of all parameters and buffers, saved or not, ``without`` those of some modules.

    BatchNorm's count of batches has no effect in evaluation, and is left out.
    """
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {
        name: tensor_digest(tensor)
        for name, tensor in tensors.items()
        if not in_modules(name, without) and not name.endswith(_COUNTER)
    }


def plain_fields(config: Any) -> dict[str, Any]:
    """All fields of a dataclass by name, for :func:`digest_of`."""
    return {entry.name: _plain(getattr(config, entry.name), 0) for entry in fields(config)}


def digest_of(parts: object) -> str:
    """SHA-256, in hex, of plain JSON values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode(errors="surrogatepass")).hexdigest()


def _settings(values: Mapping[str, Any], depth: int) -> list[Any]:
    kept = (name for name in values if name not in _OF_TORCH and _counts(name))
    return [[name, _plain(values[name], depth)] for name in sorted(kept)]


def _counts(name: object) -> bool:
    return _counts_by_name(str(name))


@lru_cache(maxsize=4096)
def _counts_by_name(text: str) -> bool:
    return text not in _NO_SETTING and not any(part in text for part in _NO_SETTING_PARTS)


def _plain(value: Any, depth: int) -> Any:
    """A value as JSON that is equal for equal values in every process: no addresses, numbers with all their digits."""
    if value is None or isinstance(value, _AS_IT_IS):
        return value
    if isinstance(value, _NUMBER):
        return [type(value).__name__, repr(value)]
    if isinstance(value, _WORD):
        return str(value)
    if isinstance(value, Tensor):
        return tensor_digest(value) if value.device.type != "meta" else [str(value.dtype), list(value.shape)]
    if isinstance(value, np.ndarray):
        return [str(value.dtype), list(value.shape), hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()]
    if depth > _DEEPEST:
        return _class(type(value))
    return _container(value, depth + 1)


def _container(value: Any, depth: int) -> Any:
    if isinstance(value, Mapping):
        rows = [[_plain(key, depth), _plain(item, depth)] for key, item in value.items() if _counts(key)]
        return sorted(rows, key=json.dumps)
    if isinstance(value, Set):
        return sorted((_plain(item, depth) for item in value), key=json.dumps)
    if isinstance(value, Sequence):
        return [_plain(item, depth) for item in value]
    if isinstance(value, nn.Module):
        return [_class(type(value)), _settings(vars(value), depth)]
    if isinstance(value, type):
        return _class(value)
    if (callable(value) and not hasattr(value, "__dict__")) or isinstance(value, FunctionType | MethodType | partial):
        return _function(value, depth)
    if is_dataclass(value):
        return [_class(type(value)), _settings({f.name: getattr(value, f.name) for f in fields(value)}, depth)]
    return [_class(type(value)), _settings(getattr(value, "__dict__", {}), depth)]


def _function(value: Any, depth: int) -> Any:
    """A function as its name; outside libraries, also its code and its closure."""
    if isinstance(value, partial):
        return [_plain(part, depth) for part in (value.func, list(value.args), value.keywords)]
    plain = getattr(value, "__func__", value)
    name = f"{getattr(plain, '__module__', '')}.{getattr(plain, '__qualname__', type(plain).__name__)}"
    if isinstance(plain, BuiltinFunctionType) or not isinstance(plain, FunctionType):
        return name
    enclosed = [_plain(cell.cell_contents, depth) for cell in plain.__closure__ or () if _filled(cell)]
    own = [] if _of_library(plain.__module__) else _code(plain.__code__)
    return [name, own, enclosed, _plain(plain.__defaults__, depth)]


def _filled(cell: Any) -> bool:
    try:
        return not isinstance(cell.cell_contents, type)  # ``super()`` encloses the class
    except ValueError:
        return False


def _class(kind: type) -> Any:
    """A class as its name; outside libraries, also the code that it defines or inherits from such classes."""
    name = f"{kind.__module__}.{kind.__qualname__}"
    own = [base for base in kind.__mro__ if base is not object and not _of_library(base.__module__)]
    code = [
        [key, _code(item.__code__)]
        for base in own
        for key, item in sorted(vars(base).items())
        if isinstance(item, FunctionType)
    ]
    return [name, code] if code else name


def _of_library(module: str | None) -> bool:
    return (module or "").partition(".")[0] in (*_LIBRARIES, "builtins", "collections", "functools", "enum")


def _code(code: CodeType) -> list[Any]:
    return [code.co_code.hex(), list(code.co_names), [_constant(item) for item in code.co_consts]]


def _constant(value: object) -> Any:
    if isinstance(value, CodeType):
        return _code(value)
    return sorted(map(repr, value)) if isinstance(value, frozenset) else repr(value)  # in any order, by process

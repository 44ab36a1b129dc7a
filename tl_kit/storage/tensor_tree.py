"""Nested values with tensors in them, as JSON and named tensors, and back exactly: what a state file holds.

JSON has no tuples, no numbers as keys, no tensors and no infinities: each of them, and every mapping, is an object with
one key that says what it is. Floats are written in full. Nothing is ever looked up by a name that stands in the text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["pack", "unpack"]

_DEEPEST = 64


def pack(tree: object) -> tuple[object, dict[str, Tensor]]:
    """JSON values, and the tensors by the names that stand for them: contiguous and on the CPU.

    Takes mappings with keys that are strings or integers, lists, tuples, tensors, strings, numbers, booleans and None;
    raises TypeError for all else.
    """
    tensors: dict[str, Tensor] = {}
    return _pack(tree, "", tensors), tensors


def _pack(value: object, name: str, tensors: dict[str, Tensor]) -> object:
    if isinstance(value, Tensor):
        order = _order(value)
        name = f"{len(tensors)}: {name}"  # of its own, whatever the keys are
        tensors[name] = value.detach().permute(order).cpu().contiguous()
        return {"tensor": [name, order]}
    if isinstance(value, Mapping):
        return {"map": [[_key(k), _pack(v, f"{name}/{k}" if name else str(k), tensors)] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        items = [_pack(item, f"{name}/{index}", tensors) for index, item in enumerate(value)]
        return {"tuple": items} if isinstance(value, tuple) else items
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{name}: a {type(value).__name__} cannot be saved")


def _key(key: object) -> object:
    if isinstance(key, str | int) and not isinstance(key, bool):
        return key
    raise TypeError(f"a key of type {type(key).__name__} cannot be saved")


def _order(tensor: Tensor) -> list[int]:
    """The dimensions from the widest stride to the narrowest, so that the tensor comes back as it lies in memory.

    The layout decides in which order a kernel goes through the numbers, and so how it rounds.
    """
    strides = tensor.stride()
    order = sorted(range(tensor.ndim), key=lambda d: -strides[d])
    return order if tensor.permute(order).is_contiguous() else list(range(tensor.ndim))


def unpack(value: object, tensors: Mapping[str, Tensor], *, depth: int = 0) -> Any:
    """What was packed. Raises ValueError for anything that :func:`pack` does not write."""
    if depth > _DEEPEST:
        raise ValueError("nested too deeply")
    if isinstance(value, list):
        return [unpack(item, tensors, depth=depth + 1) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) != 1:
        raise ValueError("an object says in one key what it is")
    ((kind, content),) = value.items()
    if kind == "tensor":
        return _tensor(content, tensors)
    if kind == "float" and content in ("inf", "-inf", "nan"):
        return float(content)
    if kind == "tuple" and isinstance(content, list):
        return tuple(unpack(item, tensors, depth=depth + 1) for item in content)
    if kind == "map" and isinstance(content, list):
        return dict(_pair(entry, tensors, depth) for entry in content)
    raise ValueError(f"{kind!r}: no such kind of value")


def _pair(entry: object, tensors: Mapping[str, Tensor], depth: int) -> tuple[Any, Any]:
    if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[0], str | int):
        raise ValueError("a mapping has pairs of a key and a value")
    return entry[0], unpack(entry[1], tensors, depth=depth + 1)


def _tensor(content: object, tensors: Mapping[str, Tensor]) -> Tensor:
    if not isinstance(content, list) or len(content) != 2 or content[0] not in tensors:
        raise ValueError("a tensor is missing")
    tensor, order = tensors[content[0]], content[1]
    if not isinstance(order, list) or sorted(order) != list(range(tensor.ndim)):
        raise ValueError(f"{content[0]}: its layout is none")
    inverse = [order.index(d) for d in range(tensor.ndim)]
    return tensor.permute(inverse) if tensor.ndim else torch.clone(tensor)

"""Unwrapping of files from training scripts: finds the network's tensors under nested keys or name prefixes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from tl_kit.errors import WeightsError

__all__ = ["unprefixed", "unwrap"]

# In order of preference: the author of a training checkpoint evaluated its averaged weights.
_AVERAGED = (
    *("state_dict_ema", "model_ema", "ema_state_dict", "ema_model_state_dict", "model_ema_state_dict", "ema_model"),
    *("ema", "shadow", "averaged_model", "swa_state_dict", "swa_model", "teacher"),
)
_NETWORK = (
    *("state_dict", "model_state_dict", "model_state", "model", "net_state_dict", "net", "network_state_dict"),
    *("network", "weights", "params", "parameters", "module", "backbone", "encoder", "student"),
)
_OTHERS = ("optim", "sched", "scaler", "loop", "callback", "rng", "param_groups")
_OPTIMIZER = "param_groups"
_DEEPEST = 6
_LONGEST_PREFIX = 8  # parts between dots


def unwrap(content: object, path: Path) -> tuple[object, tuple[str, ...]]:
    """Unwrap nested mappings: returns the network's tensors and the keys that lead to them, or the content unchanged.

    If there are several networks, averaged weights are preferred, then the names that training scripts use, in a fixed
    order. A single mapping with tensors under any other key is accepted. Raises WeightsError, in one line that names
    the file, for several networks under other keys, and for an optimizer's state.
    """
    way: tuple[str, ...] = ()
    while isinstance(content, Mapping) and len(way) < _DEEPEST:
        key = _key(content, path)
        if key is None:
            break
        content, way = content[key], (*way, key)
    return content, way


def _key(content: Mapping[Any, Any], path: Path) -> str | None:
    without: set[int] = set()
    nested = [key for key, value in content.items() if isinstance(key, str) and _holds(key, value, without)]
    known = next((key for key in (*_AVERAGED, *_NETWORK) if key in nested), None)
    if known is not None or any(isinstance(value, Tensor) and value.ndim > 1 for value in content.values()):
        return known
    if len(nested) > 1:
        names = ", ".join(nested[:5])
        raise WeightsError(f"{path}: holds several networks ({names}); save the tensors of one in a file of its own")
    if not nested and (_OPTIMIZER in content or any(_is_optimizer(value) for value in content.values())):
        raise WeightsError(f"{path}: holds an optimizer's state and no network; save model.state_dict()")
    return nested[0] if nested else None


def _is_optimizer(value: object) -> bool:
    return isinstance(value, Mapping) and _OPTIMIZER in value


def _holds(key: str, value: object, without: set[int]) -> bool:
    """True if a mapping under this key contains weights: tensors of two or more dimensions, by name.

    ``without``: the id() of mappings without weights, which are not searched again.
    """
    seen, left = set(), [(value, 0)]
    if any(word in key.lower() for word in _OTHERS):
        return False
    while left:
        mapping, depth = left.pop()
        if not isinstance(mapping, Mapping) or _is_optimizer(mapping) or id(mapping) in seen or id(mapping) in without:
            continue
        seen.add(id(mapping))
        named = [item for name, item in mapping.items() if isinstance(name, str)]
        if any(isinstance(item, Tensor) and item.ndim > 1 for item in named):
            return True
        left += [(item, depth + 1) for item in named if depth < _DEEPEST]
    without |= seen
    return False


def unprefixed(content: Mapping[str, Any], own: Collection[str], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each likely prefix before the model's names ``own``, and the tensors without it; the likeliest first.

    Wrappers add such prefixes: DataParallel, Lightning, a class of the user's. Raises WeightsError if the file contains
    the model more than once, and none of the copies is averaged or a teacher's.
    """
    found = _by_names(content, own, path)
    if found:
        yield found, _below(content, found)
    shared, left = [], dict(content)
    roots = {name.split(".")[0] for name in own}
    while len(first := {name.split(".")[0] for name in left if "." in name}) == 1 and not first & roots:
        shared.append(first.pop())
        left = _below(left, shared[-1])
    if shared and ".".join(shared) != found:
        yield ".".join(shared), left


def _by_names(content: Mapping[str, Any], own: Collection[str], path: str) -> str:
    """The prefix that most of the model's names have; empty if they have none."""
    names, counts = frozenset(own), Counter[str]()
    for name in content:
        parts = name.split(".")
        for place in range(min(len(parts), _LONGEST_PREFIX + 1)):
            if ".".join(parts[place:]) in names:
                counts[".".join(parts[:place])] += 1
    most = max(counts.values(), default=0)
    best = sorted(prefix for prefix, count in counts.items() if count == most)
    averaged = [prefix for prefix in best if any(part in _AVERAGED for part in prefix.split("."))]
    if len(best) > 1 and len(averaged) != 1 and "" not in best:
        raise WeightsError(
            f"{path}: holds the model more than once, as {', '.join(best[:5])}; save the tensors of one alone"
        )
    return "" if not best or "" in best else (averaged or best)[0]


def _below(content: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(f"{prefix}."): value for name, value in content.items() if name.startswith(f"{prefix}.")}

"""Parameter groups: what is exempt from weight decay, and learning rates that differ by layer."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import timm.optim
from timm.models import group_parameters
from torch import Tensor, nn

from tl_kit.errors import ConfigError, TrainingError

__all__ = ["decay_exempt", "layer_scales", "no_weight_decay", "param_groups"]

_ALL_ALIKE: Mapping[str, float] = MappingProxyType({})


def decay_exempt(name: str, parameter: Tensor, *, patterns: Iterable[str] = ()) -> bool:
    """True where a parameter is kept out of weight decay and penalties.

    Exempt are biases, tensors of at most one dimension (the scales and shifts of norms), and names that match one of
    ``patterns`` (wildcards allowed), for which :func:`no_weight_decay` gives what the model asks for.
    """
    return parameter.ndim <= 1 or name.endswith(".bias") or any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def no_weight_decay(model: nn.Module) -> frozenset[str]:
    """The names that a timm model wants exempt, such as position embeddings; empty for other models."""
    method = getattr(model, "no_weight_decay", None)
    return frozenset(method()) if callable(method) else frozenset()


def layer_scales(model: nn.Module, *, layer_decay: float) -> dict[str, float]:
    """Parameter name -> ``layer_decay ** depth``; depth counts layers from the head, which has scale 1 (BEiT).

    Layers are those of timm's fine ``group_matcher``; without one, runs of twelve parameters, as timm has it.
    Raises :class:`ConfigError` for a decay that is not above 0 and at most 1.
    """
    if not 0 < layer_decay <= 1:
        raise ConfigError(f"the layer decay must be above 0 and at most 1, not {layer_decay}")
    matcher: Any = getattr(model, "group_matcher", None)
    by_count: Any = timm.optim.auto_group_layers  # type: ignore[attr-defined]
    layers = by_count(model) if matcher is None else group_parameters(model, matcher(coarse=False), reverse=True)
    last = max(layers.values())
    return {name: layer_decay ** (last - layers.get(name, last)) for name, _ in model.named_parameters()}


def param_groups(
    model: nn.Module,
    *,
    weight_decay: float,
    layer_decay: float | None,
    trainable: Collection[str],
    lr: float,
    decays: Mapping[str, float] = _ALL_ALIKE,
    factors: Mapping[str, float] = _ALL_ALIKE,
) -> list[dict[str, Any]]:
    """Groups for an optimizer over the ``trainable`` parameter names, and no others.

    Each group has ``params``, their ``param_names``, ``weight_decay`` (0 for :func:`decay_exempt` ones; for names in
    ``decays``, what it says), ``lr_scale`` (:func:`layer_scales`; 1 without ``layer_decay``; times what
    ``factors`` says of a name) and ``lr`` = ``lr * lr_scale``. Groups and parameters are in the model's order.

    Raises :class:`ConfigError` for a name that the model does not have, :class:`TrainingError` where nothing is
    trainable.
    """
    wanted = set(trainable)
    parameters = dict(model.named_parameters())
    if unknown := sorted(wanted - parameters.keys()):
        raise ConfigError(f"the model has no parameter {unknown[0]!r} ({len(unknown)} unknown in all)")
    if not wanted:
        raise TrainingError("there are no trainable parameters: choose a policy that trains more than none")
    scales = dict.fromkeys(parameters, 1.0) if layer_decay is None else layer_scales(model, layer_decay=layer_decay)
    patterns = no_weight_decay(model)
    groups: dict[tuple[float, bool, float], dict[str, Any]] = {}
    for name, parameter in parameters.items():
        if name not in wanted:
            continue
        scale, exempt = scales[name] * factors.get(name, 1.0), decay_exempt(name, parameter, patterns=patterns)
        decay = 0.0 if exempt else decays.get(name, weight_decay)
        fresh = {"params": [], "param_names": [], "weight_decay": decay, "lr_scale": scale, "lr": lr * scale}
        group = groups.setdefault((scale, exempt, decay), fresh)
        group["params"].append(parameter)
        group["param_names"].append(name)
    return list(groups.values())

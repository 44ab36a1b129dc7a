"""Optimizers by name, over torch and timm: one registry for the command line, the recipes and the training loop."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tl_kit.config import OptimizerDefaults
from tl_kit.errors import ConfigError, TrainingError
from tl_kit.optimization.key_values import check_options, parse_pairs
from tl_kit.optimization.registry import HEAD_ONLY, OptimizerSpec, known_names, optimizer_spec

__all__ = [
    "HEAD_ONLY",
    "add_groups",
    "create_optimizer",
    "default_lr",
    "default_weight_decay",
    "forget",
    "needs_second_order",
    "optimizer_names",
    "parse_options",
]


def optimizer_names() -> tuple[str, ...]:
    """Every name that :func:`create_optimizer` can make on this machine, sorted; without :data:`HEAD_ONLY`."""
    return tuple(name for name in known_names() if not optimizer_spec(name).missing)


def needs_second_order(name: str) -> bool:
    """True where gradients must be taken with ``create_graph=True``, so that ``step`` can differentiate them again."""
    return optimizer_spec(name).second_order


def default_lr(name: str, *, pretrained: bool) -> float:
    """The usual starting rate, or a tenth of it for pretrained weights (:class:`OptimizerDefaults`)."""
    spec = _usable(name)
    return spec.default_lr * (OptimizerDefaults().finetune_scale if pretrained else 1.0)


def default_weight_decay(name: str) -> float:
    """The usual weight decay, coupled or decoupled as the optimizer has it (:class:`OptimizerDefaults`)."""
    defaults = OptimizerDefaults()
    _usable(name)
    return defaults.weight_decays.get(name, defaults.weight_decay)


def parse_options(name: str, pairs: Sequence[str]) -> dict[str, object]:
    """Read ``["betas=0.9,0.99", "eps=1e-6"]``; the result holds what was given, typed.

    Raises :class:`ConfigError` for an unknown optimizer, an option that it does not have (naming the nearest), or a
    value that the option cannot have.
    """
    return parse_pairs(f"optimizer {name!r}", pairs, _usable(name).options)


def create_optimizer(
    name: str,
    params_or_groups: Iterable[Tensor] | Iterable[Mapping[str, Any]],
    *,
    lr: float,
    weight_decay: float = 0.0,
    options: Mapping[str, object] | None = None,
    fused: bool = False,
) -> torch.optim.Optimizer:
    """The optimizer ``name`` over tensors, or over groups such as those of ``param_groups``.

    A group keeps its own ``lr`` and ``weight_decay``; one with an ``lr_scale`` and no ``lr`` gets ``lr * lr_scale``.
    Every group is given its ``initial_lr``, to which schedules refer. ``fused`` asks for the fused version where the
    optimizer has one and all parameters are on a CUDA device; it changes speed only.

    Raises :class:`ConfigError` for an unknown name (with the nearest one), a name that only fits a head
    (:data:`HEAD_ONLY`), a missing package, an unknown option or a value out of range, and :class:`TrainingError`
    where there are no parameters.
    """
    spec = _usable(name)
    owner = f"optimizer {name!r}"
    for flag, value in (("lr", lr), ("weight decay", weight_decay)):
        if not math.isfinite(value) or value < 0:
            raise ConfigError(f"{owner}: the {flag} must be a finite number of at least 0, not {value}")
    groups = _as_groups(params_or_groups, lr)
    given = check_options(owner, options or {}, spec.options)
    arguments = {key: option.default for key, option in spec.options.items()} | dict(spec.fixed) | given
    if fused and spec.fused and all(p.is_cuda and p.is_floating_point() for g in groups for p in g["params"]):
        arguments["fused"] = True
    optimizer = _construct(spec, groups, {"lr": lr, "weight_decay": weight_decay, **arguments})
    for group in optimizer.param_groups:
        _note_rate(group)
    return optimizer


def add_groups(optimizer: torch.optim.Optimizer, groups: Iterable[Mapping[str, Any]]) -> None:
    """Further groups, each with its ``lr``, as if the optimizer had been made with them; what it keeps of others stays.

    ``optimizer`` is one of :func:`create_optimizer`, or accelerate's wrapper around it.
    """
    inner = getattr(optimizer, "optimizer", optimizer)
    for group in groups:
        inner.add_param_group(dict(group))
        _note_rate(inner.param_groups[-1])
        _begin_hessian(inner, inner.param_groups[-1])
        _begin_sums(inner, inner.param_groups[-1])


def forget(optimizer: torch.optim.Optimizer) -> None:
    """Drop all that an optimizer of :func:`create_optimizer` keeps of its parameters, as if it had taken no step."""
    optimizer.state.clear()
    for group in optimizer.param_groups:
        _begin_hessian(optimizer, group)
        _begin_sums(optimizer, group)


def _note_rate(group: dict[str, Any]) -> None:
    group.setdefault("initial_lr", group["lr"])
    if "max_lr_snapshot" in group:
        # timm's corrected decay is lr²/max lr; the maximum of a layer-wise rate is its own, not the base rate.
        group["max_lr_snapshot"] = float(group["lr"])


def _begin_hessian(optimizer: torch.optim.Optimizer, group: Mapping[str, Any]) -> None:
    """timm's Adahessian notes this of its first groups alone, and looks for it in all."""
    if getattr(optimizer, "is_second_order", False):
        for parameter in group["params"]:
            parameter.hess = 0.0
            optimizer.state[parameter]["hessian step"] = 0


def _begin_sums(optimizer: torch.optim.Optimizer, group: Mapping[str, Any]) -> None:
    """Adagrad of older torch (2.11) begins its sums in the constructor alone, and its step asks all groups for them."""
    if isinstance(optimizer, torch.optim.Adagrad) and group["params"]:
        begun = {key: group[key] for key in ("initial_accumulator_value", "fused")}
        optimizer.state.update(torch.optim.Adagrad(group["params"], **begun).state)


def _usable(name: str) -> OptimizerSpec:
    spec = optimizer_spec(name)
    if spec.missing:
        raise ConfigError(f"optimizer {name!r} {spec.missing}")
    return spec


def _as_groups(params_or_groups: Iterable[Tensor] | Iterable[Mapping[str, Any]], lr: float) -> list[dict[str, Any]]:
    entries = list(params_or_groups)
    if all(isinstance(entry, Tensor) for entry in entries):
        groups: list[dict[str, Any]] = [{"params": entries}]
    else:
        groups = [dict(entry) for entry in entries if isinstance(entry, Mapping)]
    for group in groups:
        group["params"] = list(group["params"])
        group.setdefault("lr", lr * group.get("lr_scale", 1.0))
    if not any(group["params"] for group in groups):
        raise TrainingError("there are no trainable parameters: the optimizer has nothing to update")
    return groups


def _construct(spec: OptimizerSpec, groups: list[dict[str, Any]], arguments: dict[str, Any]) -> torch.optim.Optimizer:
    assert spec.factory is not None
    try:
        optimizer = spec.factory(groups, **arguments)
    except (AssertionError, ValueError) as error:
        raise ConfigError(f"optimizer {spec.name!r}: {error}") from error
    if spec.factory.__module__ == "timm.optim.kron":
        # Kron compiles one set of functions for each shape: minutes on a CPU, and a C++ compiler on every machine.
        step = torch.compiler.set_stance("force_eager")(optimizer.step)
        object.__setattr__(optimizer, "step", step)
    return optimizer

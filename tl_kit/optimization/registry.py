"""Registry of optimizers: each one's constructor, options and requirements.

The lecture's eight go by the lecture's equations; every other name is timm's, with timm's own defaults. The
conventions, where libraries differ (``g`` the gradient, ``s`` a mean or sum of ``g²``):

* epsilon stands outside the root, ``g / (√s + eps)``, for adagrad, rmsprop, adam, adam-uncorrected and adamw; with
  Adam's correction it is added after it, ``m̂ / (√ŝ + eps)``. timm's ``rmsproptf`` has it inside, and s starts at one.
* momentum keeps gradients, ``v = ρv + g``, and the rate is applied outside, ``x −= lr·v``: a change of the rate acts
  on the whole velocity at once. The first step is ``v = g``, without damping.
* nesterov is the change of variables: the weights are the look-ahead point ``x + ρv`` of the original form.
* weight decay is coupled (``g += λx``) except in adamw, where ``x −= lr·λ·x`` on its own.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import timm.optim
import torch

from tl_kit.config import OptimizerDefaults
from tl_kit.errors import ConfigError
from tl_kit.number_ranges import ANY, BELOW_ONE, NOT_NEGATIVE, POSITIVE, Range
from tl_kit.optimization.adam_uncorrected import AdamUncorrected
from tl_kit.optimization.key_values import Option, require_known

__all__ = ["HEAD_ONLY", "OptimizerSpec", "known_names", "optimizer_spec"]

# timm.optim names its functions without exporting them, in the sense of type checkers.
_factory: Any = timm.optim

HEAD_ONLY = frozenset({"lbfgs", "newton"})

_LECTURE: Mapping[str, tuple[Callable[..., torch.optim.Optimizer], Mapping[str, object], str]] = {
    "sgd": (torch.optim.SGD, {}, "x -= lr * g"),
    "momentum": (torch.optim.SGD, {}, "v = rho * v + g; x -= lr * v"),
    "nesterov": (torch.optim.SGD, {"nesterov": True}, "v = rho * v + g; x -= lr * (g + rho * v)"),
    "adagrad": (torch.optim.Adagrad, {}, "s += g^2; x -= lr * g / (sqrt(s) + eps)"),
    "rmsprop": (torch.optim.RMSprop, {}, "s = alpha * s + (1 - alpha) * g^2; x -= lr * g / (sqrt(s) + eps)"),
    "adam": (torch.optim.Adam, {}, "momentum and RMSProp together, both moments corrected for their start at zero"),
    "adam-uncorrected": (AdamUncorrected, {}, "Adam without the correction: its first steps are too long"),
    "adamw": (torch.optim.AdamW, {}, "Adam with weight decay decoupled from the gradient"),
}

# Given by their own flags, or about how a step is computed rather than what it computes.
_NOT_OPTIONS = frozenset(
    {
        *("self", "params", "lr", "weight_decay", "foreach", "fused", "maximize", "capturable", "differentiable"),
        *("verbose", "mu_dtype", "precond_dtype", "momentum_dtype", "adamw_lr", "algo"),
    }
)
_LIMITS: Mapping[str, Range] = {
    **dict.fromkeys(("momentum", "betas", "betas_1d", "alpha", "rho"), BELOW_ONE),
    **dict.fromkeys(("eps", "initial_accumulator_value"), NOT_NEGATIVE),
    **dict.fromkeys(("n_samples", "update_each", "ns_steps", "clipping_threshold", "clip_threshold"), POSITIVE),
}
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "adjust_lr_fn": ("original", "match_rms_adamw", "rms_to_rms", "rsqrt_in"),
    "conv_mode": ("flatten", "batched"),
    "mars_type": ("adamw", "lion"),
    "memory_save_mode": ("one_diag", "smart_one_diag", "all_diag"),
    "ns_coefficients": ("original", "quintic", "polar_express", "polar_express_safer"),
}


@dataclass(frozen=True)
class OptimizerSpec:
    """One optimizer.

    ``second_order``: it needs gradients that can be differentiated again (``create_graph=True``). ``missing``: why it
    cannot be used on this machine, or an empty string. ``fused``: there is a fused CUDA version.
    ``default_lr``: the rate for training from scratch.
    """

    name: str
    description: str
    factory: Callable[..., torch.optim.Optimizer] | None
    fixed: Mapping[str, object]
    options: Mapping[str, Option]
    default_lr: float
    second_order: bool = False
    fused: bool = False
    missing: str = ""


def known_names() -> tuple[str, ...]:
    """All names, sorted, those that cannot be used here included; without :data:`HEAD_ONLY`."""
    return tuple(sorted({*_LECTURE, *_factory.list_optimizers()}))


@cache
def optimizer_spec(name: str) -> OptimizerSpec:
    """The registry's entry of an optimizer. Raises :class:`ConfigError`, with the nearest name, for an unknown one."""
    if name in HEAD_ONLY:
        raise ConfigError(f"optimizer {name!r} only fits a head on cached features: use it with --policy head")
    require_known("optimizer", name, (*known_names(), *sorted(HEAD_ONLY)))
    return _lecture_spec(name) if name in _LECTURE else _timm_spec(name)


def _lecture_spec(name: str) -> OptimizerSpec:
    factory, fixed, description = _LECTURE[name]
    defaults = OptimizerDefaults()
    return OptimizerSpec(
        name=name,
        description=description,
        factory=factory,
        fixed=fixed,
        options=_options(defaults.options[name], {}),
        default_lr=defaults.learning_rates[name],
        fused="fused" in inspect.signature(factory).parameters,
    )


def _timm_spec(name: str) -> OptimizerSpec:
    info = _factory.get_optimizer_info(name)
    if missing := _missing(info.opt_class):
        return OptimizerSpec(name, info.description, None, {}, {}, float("nan"), missing=missing)
    factory = _factory.get_optimizer_class(name, bind_defaults=False)
    defaults = OptimizerDefaults()
    bound = dict(info.defaults or {})
    if info.has_momentum:
        bound.setdefault("momentum", defaults.timm_momentum)
    parameters = inspect.signature(factory).parameters
    # A flag that the name itself stands for (caution in cadamw, nesterov in nlars) is no option of that name.
    named = {key for key, value in bound.items() if isinstance(value, (bool, str))}
    values = {key: bound.get(key, p.default) for key, p in parameters.items() if key not in _NOT_OPTIONS | named}
    options = _options(values, {key: p.annotation for key, p in parameters.items()})
    return OptimizerSpec(
        name=name,
        description=info.description,
        factory=factory,
        fixed={key: bound[key] for key in bound if key not in options},
        options=options,
        default_lr=defaults.learning_rates.get(name, parameters["lr"].default),
        second_order=info.second_order,
        fused="fused" in parameters,
    )


def _missing(opt_class: Any) -> str:
    """The reason why a class of timm's registry cannot be used, else empty; classes of other packages are names."""
    if not isinstance(opt_class, str):
        # Without opt_einsum torch contracts Kron's tensors in the order given: minutes and gigabytes for one step.
        needs = "opt_einsum" if opt_class.__module__ == "timm.optim.kron" else None
    else:
        needs = opt_class.partition(".")[0]
    if needs is not None and importlib.util.find_spec(needs) is None:
        return f"needs the package {needs}, which is not installed"
    if isinstance(opt_class, str) and not torch.cuda.is_available():
        return f"needs a CUDA device, as all of {needs} does"
    return ""


def _options(values: Mapping[str, object], annotations: Mapping[str, object]) -> dict[str, Option]:
    found = {key: _option(key, value, annotations.get(key)) for key, value in values.items()}
    return {key: option for key, option in found.items() if option is not None}


def _option(key: str, default: Any, annotation: Any) -> Option | None:
    limits, choices = _LIMITS.get(key, ANY), _CHOICES.get(key, ())
    words = str(annotation).lower()
    optional = default is None or "optional" in words or "none" in words
    kind: type[object] | None
    if default is None:
        by_word: Mapping[str, type[object]] = {"tuple": tuple, "float": float, "str": str}
        kind = next((kind for word, kind in by_word.items() if word in words), None)
    elif isinstance(default, int) and not isinstance(default, bool) and annotation is not int:
        # torch and timm write 0 for 0.0 where they do not annotate; their true counts start at one.
        kind = float if default == 0 or "float" in words else int
    else:
        kind = type(default)
    if kind is None or kind not in (bool, int, float, str, tuple):
        return None
    if kind is float and default is not None:
        default = float(default)
    length = len(default) if isinstance(default, tuple) else 2 if kind is tuple else None
    return Option(default, kind, length=length, optional=optional, limits=limits, choices=choices)

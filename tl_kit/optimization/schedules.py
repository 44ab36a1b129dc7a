"""Learning-rate decay as pure functions of the step.

``multiplier`` is what the initial rate is multiplied with in step 0, 1, 2, ... Warm-up comes first and rises in
equal parts, ``(step + 1) / (warmup_steps + 1)``, so that no step is wasted at rate zero. The decay then runs over the
``T = total_steps − warmup_steps`` that follow; below, ``t`` counts from the warm-up's end and ``p = t / T``:

========== ===================================================================================================
constant   1
step       gamma^⌊p / every⌋
multistep  gamma^(number of milestones ≤ p)
exponential e^(−k·p)                       the lecture's α₀e^(−kt), t in whole runs
inverse    1 / (1 + k·p)                   the lecture's α₀/(1 + kt), t in whole runs
cosine     floor + (1 − floor)·(1 + cos πp) / 2                                        Loshchilov & Hutter 2017
linear     floor + (1 − floor)·(1 − p)
poly       floor + (1 − floor)·(1 − p)^power
cyclic     cosine, restarted each ⌈T / cycles⌉ steps                                          Huang et al. 2017
onecycle   cosine up from 1/div_factor, then down to 1/(div_factor·final_div_factor)         Smith & Topin 2018
wsd        1, then over the last ``decay`` of the run down to floor, by 1−√, linear or cosine  Hägele et al. 2024
plateau    factor^(drops so far); a drop follows more than ``patience`` metrics in a row without an improvement
========== ===================================================================================================
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch

from tl_kit.config import ScheduleDefaults
from tl_kit.errors import ConfigError
from tl_kit.number_ranges import FRACTION, NOT_NEGATIVE, POSITIVE, Range
from tl_kit.optimization.key_values import Option, check_options, parse_pairs, require_known

__all__ = [
    "Schedule",
    "create_schedule",
    "cycle_ends",
    "multiplier",
    "parse_schedule_options",
    "plateau_multiplier",
    "schedule_names",
    "set_lr",
]

# Shares such as 0.3 are not exact in binary: a boundary counts as reached this much of a step early.
_SLACK = 1e-9

_BELOW_ONE_OPEN = Range("above 0 and below 1", lambda value: 0 < value < 1)
_AT_LEAST_ONE = Range("at least 1", lambda value: value >= 1)
_SHARE = Range("between 0 and 1", lambda value: 0 <= value <= 1)
_LIMITS: Mapping[str, Range] = {
    **dict.fromkeys(("every", "gamma", "decay"), FRACTION),
    **dict.fromkeys(("factor", "milestones", "pct_start"), _BELOW_ONE_OPEN),
    **dict.fromkeys(("k", "patience", "cooldown", "threshold"), NOT_NEGATIVE),
    **dict.fromkeys(("cycles", "div_factor", "final_div_factor"), _AT_LEAST_ONE),
    "floor": _SHARE,
    "power": POSITIVE,
}
_CHOICES = {"shape": ("1-sqrt", "linear", "cosine")}


class Schedule(Protocol):
    """Step -> multiplier. ``history`` holds the metric of each evaluation so far; only ``plateau`` looks at it."""

    def __call__(self, step: int, history: Sequence[float] = ...) -> float: ...


def schedule_names() -> tuple[str, ...]:
    """All schedules, in the order of the lecture."""
    return tuple(ScheduleDefaults().options)


def parse_schedule_options(name: str, pairs: Sequence[str]) -> dict[str, object]:
    """Read ``["gamma=0.5", "milestones=0.6,0.8"]``; what was given, typed. Raises :class:`ConfigError`."""
    return parse_pairs(f"schedule {name!r}", pairs, _options(name))


def create_schedule(
    name: str, *, total_steps: int, warmup_steps: int = 0, options: Mapping[str, object] | None = None
) -> Schedule:
    """The schedule as a function of the step, its arguments checked once.

    Raises :class:`ConfigError` for an unknown name (with the nearest one) or option, a value out of range, a run
    without steps, a warm-up that leaves nothing to decay over, and a warm-up before ``onecycle``, which has its own.
    """
    values = _values(name, options)
    if total_steps < 1:
        raise ConfigError(f"a run has at least one step, not {total_steps}")
    if not 0 <= warmup_steps < total_steps:
        raise ConfigError(f"--warmup: the warm-up cannot take {warmup_steps} of {total_steps} steps; make it shorter")
    if name == "onecycle" and warmup_steps:
        raise ConfigError("schedule 'onecycle' has its own warm-up (option pct_start): leave the warm-up at 0")
    length = total_steps - warmup_steps

    def schedule(step: int, history: Sequence[float] = ()) -> float:
        if step < 0:
            raise ConfigError(f"steps count from 0: there is no step {step}")
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        if name == "plateau":
            return plateau_multiplier(history, options=values)
        return _SHAPES[name](min(step - warmup_steps, length), length, values)

    return schedule


def multiplier(
    name: str,
    step: int,
    *,
    total_steps: int,
    warmup_steps: int = 0,
    options: Mapping[str, object] | None = None,
    history: Sequence[float] = (),
) -> float:
    """The multiplier of one step; errors as for :func:`create_schedule`. Steps past the end keep the last value."""
    schedule = create_schedule(name, total_steps=total_steps, warmup_steps=warmup_steps, options=options)
    return schedule(step, history)


def plateau_multiplier(history: Sequence[float], *, options: Mapping[str, object] | None = None) -> float:
    """The multiplier after the metrics in ``history``, oldest first.

    Less is better. An improvement is relative to the best one's size, by ``threshold``; ``cooldown`` evaluations after
    a drop are not held against the run; a NaN is no improvement. For positive metrics this is torch's
    ``ReduceLROnPlateau`` (which takes a slightly worse negative metric for a better one).
    """
    values: Mapping[str, Any] = _values("plateau", options)
    best, bad, cooling, result = math.inf, 0, 0, 1.0
    for metric in history:
        if metric < best - (values["threshold"] * abs(best) if math.isfinite(best) else 0.0):
            best, bad = metric, 0
        else:
            bad += 1
        if cooling > 0:
            cooling, bad = cooling - 1, 0
        if bad > values["patience"]:
            result = max(result * values["factor"], values["floor"])
            cooling, bad = values["cooldown"], 0
    return result


def cycle_ends(
    *, total_steps: int, warmup_steps: int = 0, options: Mapping[str, object] | None = None
) -> tuple[int, ...]:
    """The last step of each cycle of ``cyclic``, where the rate is lowest and a snapshot is taken."""
    cycles: Any = _values("cyclic", options)["cycles"]
    create_schedule("cyclic", total_steps=total_steps, warmup_steps=warmup_steps, options=options)
    length = math.ceil((total_steps - warmup_steps) / cycles)
    return tuple(min(start + length, total_steps) - 1 for start in range(warmup_steps, total_steps, length))


def set_lr(optimizer: torch.optim.Optimizer, multiplier: float) -> None:
    """Set the rate of each group to its own ``initial_lr`` (noted on first use) times ``multiplier``."""
    for group in optimizer.param_groups:
        initial = group.setdefault("initial_lr", float(group["lr"]))
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(initial * multiplier)
        else:
            group["lr"] = initial * multiplier


def _options(name: str) -> dict[str, Option]:
    defaults = ScheduleDefaults().options
    require_known("schedule", name, defaults)
    result = {}
    for key, value in defaults[name].items():
        limits, choices = _LIMITS.get(key, NOT_NEGATIVE), _CHOICES.get(key, ())
        result[key] = Option(value, type(value), limits=limits, choices=choices)
    return result


def _values(name: str, options: Mapping[str, object] | None) -> dict[str, Any]:
    known = _options(name)
    given = check_options(f"schedule {name!r}", options or {}, known)
    return {key: option.default for key, option in known.items()} | given


def _between(floor: float, share: float) -> float:
    return floor + (1 - floor) * share


def _cosine(progress: float) -> float:
    return (1 + math.cos(math.pi * progress)) / 2


def _step(t: int, length: int, o: Mapping[str, Any]) -> float:
    return float(o["gamma"] ** math.floor((t + _SLACK) / (o["every"] * length)))


def _multistep(t: int, length: int, o: Mapping[str, Any]) -> float:
    return float(o["gamma"] ** sum(t + _SLACK >= milestone * length for milestone in o["milestones"]))


def _cyclic(t: int, length: int, o: Mapping[str, Any]) -> float:
    cycle = math.ceil(length / o["cycles"])
    return _between(o["floor"], _cosine(t % cycle / cycle))


def _onecycle(t: int, length: int, o: Mapping[str, Any]) -> float:
    start: float = 1 / o["div_factor"]
    end: float = start / o["final_div_factor"]
    last = length - 1
    peak: float = o["pct_start"] * length - 1
    if t <= peak:
        return start + (1 - start) * (1 - _cosine(t / peak if peak > 0 else 1.0))
    return end + (1 - end) * _cosine(min((t - peak) / (last - peak), 1.0) if last > peak else 1.0)


def _wsd(t: int, length: int, o: Mapping[str, Any]) -> float:
    share = (t - (1 - o["decay"]) * length) / (o["decay"] * length)
    if share <= 0:
        return 1.0
    share = min(share, 1.0)
    falling = {"1-sqrt": 1 - math.sqrt(share), "linear": 1 - share, "cosine": _cosine(share)}
    return _between(o["floor"], falling[o["shape"]])


_SHAPES: Mapping[str, Callable[[int, int, Mapping[str, Any]], float]] = {
    "constant": lambda t, length, o: 1.0,
    "step": _step,
    "multistep": _multistep,
    "exponential": lambda t, length, o: math.exp(-o["k"] * t / length),
    "inverse": lambda t, length, o: 1 / (1 + o["k"] * t / length),
    "cosine": lambda t, length, o: _between(o["floor"], _cosine(t / length)),
    "linear": lambda t, length, o: _between(o["floor"], 1 - t / length),
    "poly": lambda t, length, o: _between(o["floor"], (1 - t / length) ** o["power"]),
    "cyclic": _cyclic,
    "onecycle": _onecycle,
    "wsd": _wsd,
}

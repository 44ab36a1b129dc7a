"""Schedules against torch's and timm's schedulers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from timm.scheduler import CosineLRScheduler, PolyLRScheduler
from timm.scheduler.wsd_lr import WSDLRScheduler
from torch.optim import lr_scheduler

from tl_kit.optimization.schedules import create_schedule, plateau_multiplier, schedule_names

T = 100
NAMES = schedule_names()


def ours(name: str, options: Mapping[str, object] | None = None, *, warmup: int = 0, steps: int = T) -> list[float]:
    schedule = create_schedule(name, total_steps=steps, warmup_steps=warmup, options=options)
    return [schedule(step) for step in range(steps)]


def torchs(create: Callable[[torch.optim.Optimizer], Any], steps: int = T) -> list[float]:
    """The rates that a torch scheduler sets, at an initial rate of one."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = create(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step()
    return rates


def timms(create: Callable[[torch.optim.Optimizer], Any], steps: int = T) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = create(optimizer)
    rates = []
    for step in range(steps):
        scheduler.step_update(step)
        rates.append(float(optimizer.param_groups[0]["lr"]))
    return rates


TORCH: dict[str, tuple[str, dict[str, object], Callable[[torch.optim.Optimizer], Any]]] = {
    "StepLR": ("step", {"every": 0.3, "gamma": 0.5}, lambda o: lr_scheduler.StepLR(o, 30, gamma=0.5)),
    "StepLR, every tenth": ("step", {"every": 0.1, "gamma": 0.9}, lambda o: lr_scheduler.StepLR(o, 10, gamma=0.9)),
    "StepLR, 0.07 is not exact": (
        "step",
        {"every": 0.07, "gamma": 0.9},
        lambda o: lr_scheduler.StepLR(o, 7, gamma=0.9),
    ),
    "MultiStepLR": (
        "multistep",
        {"milestones": (0.07, 0.55, 0.9), "gamma": 0.2},
        lambda o: lr_scheduler.MultiStepLR(o, [7, 55, 90], gamma=0.2),
    ),
    "ExponentialLR": (
        "exponential",
        {"k": 5.0},
        lambda o: lr_scheduler.ExponentialLR(o, gamma=math.exp(-5 / T)),
    ),
    "CosineAnnealingLR": ("cosine", {}, lambda o: lr_scheduler.CosineAnnealingLR(o, T)),
    "CosineAnnealingLR, floor": ("cosine", {"floor": 0.1}, lambda o: lr_scheduler.CosineAnnealingLR(o, T, eta_min=0.1)),
    "LinearLR": (
        "linear",
        {"floor": 0.2},
        lambda o: lr_scheduler.LinearLR(o, start_factor=1.0, end_factor=0.2, total_iters=T),
    ),
    "PolynomialLR": ("poly", {"power": 0.9}, lambda o: lr_scheduler.PolynomialLR(o, total_iters=T, power=0.9)),
    "CosineAnnealingWarmRestarts": (
        "cyclic",
        {"cycles": 4, "floor": 0.05},
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 25, eta_min=0.05),
    ),
}


@pytest.mark.parametrize("scheduler", TORCH)
def test_parity_with_torch(scheduler: str) -> None:
    name, options, create = TORCH[scheduler]
    assert ours(name, options) == pytest.approx(torchs(create), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ({}, {}),
        ({"pct_start": 0.1}, {"pct_start": 0.1}),
        ({"pct_start": 0.25, "div_factor": 10.0, "final_div_factor": 100.0},) * 2,
    ],
)
def test_parity_with_torchs_one_cycle(options: dict[str, object], arguments: dict[str, Any]) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=T, cycle_momentum=False, **arguments)
    rates = [float(optimizer.param_groups[0]["lr"])]
    for _ in range(T - 1):
        optimizer.step()
        scheduler.step()
        rates.append(float(optimizer.param_groups[0]["lr"]))
    assert ours("onecycle", options) == pytest.approx(rates, rel=1e-9)


def test_parity_with_timm() -> None:
    step = {"t_in_epochs": False}
    assert ours("cosine") == pytest.approx(timms(lambda o: CosineLRScheduler(o, T, **step)))
    restarts = timms(lambda o: CosineLRScheduler(o, 20, cycle_limit=5, **step))
    assert ours("cyclic", {"cycles": 5}) == pytest.approx(restarts)
    assert ours("poly", {"power": 0.5}) == pytest.approx(timms(lambda o: PolyLRScheduler(o, T, power=0.5, **step)))


@pytest.mark.parametrize("shape", ["1-sqrt", "linear", "cosine"])
@pytest.mark.parametrize("floor", [0.0, 0.1])
def test_parity_with_timms_wsd(shape: str, floor: float) -> None:
    rates = timms(lambda o: WSDLRScheduler(o, T, 25, lr_min=floor, decay_fn=shape, t_in_epochs=False))
    assert ours("wsd", {"decay": 0.25, "shape": shape, "floor": floor}) == pytest.approx(rates)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("onecycle", "plateau")])
def test_warm_up_is_torchs_linear_one_followed_by_the_decay(name: str) -> None:
    warmup = 9
    linear = torchs(
        lambda o: lr_scheduler.LinearLR(o, start_factor=1 / (warmup + 1), end_factor=1.0, total_iters=warmup), warmup
    )
    rates = ours(name, warmup=warmup)
    assert rates[:warmup] == pytest.approx(linear)
    assert rates[warmup:] == pytest.approx(ours(name, steps=T - warmup))
    assert rates[warmup] == max(rates) == 1.0


METRICS = [1.0, 0.9, 0.9, 0.9, 0.9, 0.85, 0.85, 0.86, 0.87, 0.88, 0.89, 0.84, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9]


@pytest.mark.parametrize("patience", [0, 1, 3])
@pytest.mark.parametrize("cooldown", [0, 2])
@pytest.mark.parametrize("threshold", [0.0, 0.06])
def test_parity_with_torchs_plateau(patience: int, cooldown: int, threshold: float) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = lr_scheduler.ReduceLROnPlateau(
        optimizer, "min", factor=0.5, patience=patience, cooldown=cooldown, threshold=threshold, min_lr=0.01, eps=0.0
    )
    options = {"patience": patience, "cooldown": cooldown, "threshold": threshold}
    options |= {"factor": 0.5, "floor": 0.01}
    for end in range(1, len(METRICS) + 1):
        scheduler.step(METRICS[end - 1])
        assert plateau_multiplier(METRICS[:end], options=options) == optimizer.param_groups[0]["lr"]
    assert optimizer.param_groups[0]["lr"] < 1.0

"""Defaults of optimizers and learning-rate schedules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

__all__ = ["OptimizerDefaults", "Options", "ScheduleDefaults"]

Options: TypeAlias = Mapping[str, object] | tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class OptimizerDefaults:
    """Each optimizer's default learning rate, weight decay and options.

    ``learning_rates`` are for training from scratch; the usual share for fine-tuning is ``finetune_scale``. The loop's
    gradients are clipped (``LoopConfig.clip_norm``), which does part of that share's work for optimizers whose steps
    are as long as the gradient (``clipped``): they start at ``clipped_scale``, at ``frozen_norm_scale`` where BatchNorm
    keeps its statistics, and their coupled decay is then at most ``frozen_norm_decay``; from random weights it is at
    most ``scratch_decay``. All others start at the whole rate where only the last layers train, most of which is new.
    An optimizer that is not listed starts at the rate of its own constructor. Plain SGD's rate is that of momentum
    divided by 1 - 0.9: so much further a velocity carries.

    Weights that no BatchNorm follows are decayed so little that rate times decay times steps (times ten with momentum)
    is at most ``most_shrinking``: e^-0.25 is 0.78.

    ``weight_decays`` are for decay that is decoupled or goes with momentum; where an adaptive method divides a coupled
    penalty by its own root mean square, even a weak one rules: all others get timm's own ``weight_decay``. ``options``
    are those of the lecture's optimizers.
    """

    finetune_scale: float = 0.1
    clipped_scale: float = 0.3
    frozen_norm_scale: float = 0.2
    clipped: tuple[str, ...] = ("sgd", "momentum", "nesterov", "nesterovw", "sgdw", "csgdw")
    weight_decay: float = 2e-5
    frozen_norm_decay: float = 0.005
    scratch_decay: float = 0.005
    most_shrinking: float = 0.25
    weight_decays: Mapping[str, float] = field(
        default_factory=lambda: {
            **dict.fromkeys(("sgd", "momentum", "nesterov", "nesterovw", "sgdw", "csgdw"), 0.05),
            **dict.fromkeys(("adamw", "nadamw", "adoptw", "cadamw", "lion", "muon", "adan", "kron"), 0.05),
        }
    )
    learning_rates: Mapping[str, float] = field(
        default_factory=lambda: {
            "sgd": 1.0,
            **dict.fromkeys(("momentum", "nesterov", "nesterovw"), 0.1),
            **dict.fromkeys(("sgdw", "sgdp", "sgdc", "csgdw", "csgdp", "csgdc"), 0.1),
            **dict.fromkeys(("bnbsgd", "bnbsgd8bit", "fusedsgd"), 0.1),
            **dict.fromkeys(("adam", "adam-uncorrected", "adamw", "rmsprop"), 1e-3),
            **dict.fromkeys(("muon", "nmuon", "adamuon", "nadamuon"), 1e-3),
            **dict.fromkeys(("adafactorbv", "adafactorbvc", "cadafactorbv", "cadafactorbvc"), 1e-3),
            **dict.fromkeys(("adafactor", "cadafactor", "adagrad"), 1e-2),
        }
    )
    options: Mapping[str, Mapping[str, object]] = field(
        default_factory=lambda: {
            "sgd": {},
            "momentum": {"momentum": 0.9},
            "nesterov": {"momentum": 0.9},
            "adagrad": {"eps": 1e-10, "initial_accumulator_value": 0.0},
            "rmsprop": {"alpha": 0.9, "eps": 1e-8, "centered": False},
            "adam": {"betas": (0.9, 0.999), "eps": 1e-8, "amsgrad": False},
            "adam-uncorrected": {"betas": (0.9, 0.999), "eps": 1e-8},
            "adamw": {"betas": (0.9, 0.999), "eps": 1e-8, "amsgrad": False},
        }
    )
    timm_momentum: float = 0.9


@dataclass(frozen=True, kw_only=True)
class ScheduleDefaults:
    """The options of each learning-rate decay. Places and lengths are shares of the steps that follow the warm-up."""

    options: Mapping[str, Mapping[str, object]] = field(
        default_factory=lambda: {
            "constant": {},
            "step": {"every": 0.3, "gamma": 0.1},
            "multistep": {"milestones": (0.5, 0.75), "gamma": 0.1},
            "exponential": {"k": 5.0},
            "inverse": {"k": 9.0},
            "cosine": {"floor": 0.0},
            "linear": {"floor": 0.0},
            "poly": {"power": 0.9, "floor": 0.0},
            "onecycle": {"pct_start": 0.3, "div_factor": 25.0, "final_div_factor": 1e4},
            "cyclic": {"cycles": 5, "floor": 0.0},
            "wsd": {"decay": 0.2, "shape": "1-sqrt", "floor": 0.0},
            "plateau": {
                "factor": 0.1,
                "patience": 2,
                "threshold": 1e-4,
                "cooldown": 0,
                "floor": 0.0,
            },
        }
    )

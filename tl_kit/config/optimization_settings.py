"""Defaults of optimizers and learning-rate schedules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

__all__ = ["FamilyDefaults", "OptimizerDefaults", "Options", "ScheduleDefaults"]

Options: TypeAlias = Mapping[str, object] | tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class OptimizerDefaults:
    """Each optimizer's default learning rate, weight decay and options.

    ``learning_rates`` are for training from scratch. Of them fine-tuning takes a share. The loop clips gradients
    (``LoopConfig.clip_norm``), so optimizers whose steps are as long as the gradient (``clipped``) start at
    ``clipped_scale``, at ``frozen_norm_scale`` where BatchNorm keeps its statistics; without clipping, at
    ``finetune_scale``. Their coupled decay is at most ``frozen_norm_decay`` for weights that no norm follows, and
    ``scratch_decay`` from random weights. All others start at ``adaptive_scale``, or ``adaptive_frozen_scale`` where
    BatchNorm keeps its statistics: with those of the batch, an adaptive step is small beside weights that may have any
    length (docs/policies.md). Networks that BatchNorm does not follow have rates of their own (``FamilyDefaults``).
    An optimizer that is not listed starts at the rate of its own constructor. Plain SGD's rate is that of momentum
    divided by 1 - 0.9: so much further a velocity carries. Lion's is a fifth of adamw's (Chen et al. 2023: a third to a
    tenth).

    Where few parameters train, they take the share ``adapter_scale`` (adapters) or ``vector_scale`` (biases, scales and
    shifts): ten times the usual rate of fine-tuning. That is what is best for adapters (Biderman et al. 2024,
    "LoRA learns less and forgets less"), and the range in which Ben Zaken et al. 2022 ("BitFit") look for biases.

    Weights that no norm follows are decayed so little that rate times decay times steps (times ten with momentum)
    is at most ``most_shrinking``: e^-0.25 is 0.78.

    ``weight_decays`` are for decay that is decoupled or goes with momentum; where an adaptive method divides a coupled
    penalty by its own root mean square, even a weak one rules: all others get timm's own ``weight_decay``. ``options``
    are those of the lecture's optimizers. ``behind``: points below the best of them, each at its own defaults, on few
    photos (docs/policies.md), where noise does not explain them; a plan says it.
    """

    finetune_scale: float = 0.1
    clipped_scale: float = 0.3
    frozen_norm_scale: float = 0.2
    adaptive_scale: float = 1.0
    adaptive_frozen_scale: float = 0.3
    clipped: tuple[str, ...] = ("sgd", "momentum", "nesterov", "nesterovw", "sgdw", "csgdw")
    adapter_scale: float = 1.0
    vector_scale: float = 1.0
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
            **dict.fromkeys(("lion", "clion"), 2e-4),
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
    behind: Mapping[str, float] = field(default_factory=lambda: {"adagrad": 5.7})


@dataclass(frozen=True, kw_only=True)
class FamilyDefaults:
    """Fine-tuning of pretrained networks that BatchNorm does not follow: AdamW's rate, layer decay and warm-up.

    ``rate``, ``layer_decay`` and ``warmup`` (a share of the run) are AutoGluon's for CaFormer, Swin and ViT
    (MultiModalPredictor's ``optim.lr``, ``optim.lr_decay``, ``optim.warmup_steps``). ``families`` are patterns of
    timm's name with its tag, each with the rate and the layer decay in place of these; the first that fits counts:

    - DINOv2 and v3: of 1e-5, 1e-6 and 1e-7 larger networks wanted the lower ones (facebookresearch/dinov2, #252).
    - CLIP, SigLIP and their like: 3e-5 at 512 images a batch (Wortsman et al. 2022, "Robust fine-tuning of zero-shot
      models"), times the root of 32 / 512.
    - masked image modelling (MAE, BEiT, EVA, Hiera, I-JEPA): the last layers know no classes yet, so the layer decay
      is 0.65 for a base network and 0.75 for a large one (MAE's FINETUNE.md); the rate is below that recipe's, 2e-3 at
      1,024 images, times the root of 32 / 1024.

    ConvNeXt's authors take 5e-5 at 512 images and 0.8 (TRAINING.md), within a factor of four of the usual one.
    ``sizes``: from so many parameters on the rate is multiplied so, as larger networks want lower ones.
    """

    rate: float = 1e-4
    layer_decay: float = 0.9
    warmup: float = 0.1
    families: tuple[tuple[str, float, float], ...] = (
        ("*dinov[23]*", 1e-5, 0.9),
        ("*clip*", 1e-5, 0.9),
        ("*siglip*", 1e-5, 0.9),
        ("*.mae*", 1e-4, 0.75),
        ("*beit*", 1e-4, 0.75),
        ("eva*", 5e-5, 0.75),
        ("*hiera*", 1e-4, 0.75),
        ("*ijepa*", 1e-4, 0.75),
    )
    sizes: tuple[tuple[int, float], ...] = ((150_000_000, 0.5), (500_000_000, 0.2))


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

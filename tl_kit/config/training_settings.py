"""Defaults of training: the head, the loop, regularization, averages, probes and policies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = [
    "AutoPolicyConfig",
    "HeadConfig",
    "LoopConfig",
    "NanAnswer",
    "ProbeConfig",
    "RangeTestConfig",
    "RegularizationConfig",
    "RollbackConfig",
    "Selection",
    "SwaConfig",
]

NanAnswer: TypeAlias = Literal["stop", "rollback"]
Selection: TypeAlias = Literal["auto", "accuracy", "balanced-accuracy", "macro-f1", "nll"]


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """The penalised logistic regression on cached features.

    ``strengths`` are scikit-learn's C on scaled features (``ScalingConfig``), weakest penalty last; ``solver`` is lbfgs
    or newton.
    Where the layers below train afterwards, the head starts with ``start_strength``: fitted as closely as it can be, it
    would leave them nothing to learn (Ren et al. 2023, "How to prepare your task head for finetuning").
    Fits of fewer than
    ``one_thread_below`` multiplications a step (images x features x classes) run on one thread: handing out so little
    work costs more than doing it, a hundred times more on a busy machine. Heads of fewer than ``cross_validate_below``
    are cross-validated too, over ``folds``.
    """

    strengths: tuple[float, ...] = (1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 1.0)
    start_strength: float = 1e-4
    max_iter: int = 200
    solver: str = "lbfgs"
    one_thread_below: int = 100_000_000
    folds: int = 5
    cross_validate_below: int = 30_000_000


@dataclass(frozen=True, kw_only=True)
class RegularizationConfig:
    """Regularizers of the gradient methods; 0 or None: off, or as the model has it.

    ``l1``, ``l2`` and ``l2_sp`` are strengths of penalties added to the loss; ``dropout``, ``drop_connect`` and
    ``drop_path`` probabilities of dropping activations, weights of linear layers, and residual branches;
    ``mixup`` and ``cutmix`` the alpha of their Beta distributions; ``ema`` the decay of the averaged weights; ``swa``
    whether a uniform average of them is tried at the end (``SwaConfig``).
    """

    l1: float = 0.0
    l2: float = 0.0
    l2_sp: float = 0.0
    dropout: float | None = None
    drop_connect: float = 0.0
    drop_path: float | None = None
    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    ema: float | None = None
    swa: bool = False


@dataclass(frozen=True, kw_only=True)
class SwaConfig:
    """Stochastic weight averaging: of the epochs (``cyclic``: cycles) that end after this share of the run.

    ``schedule`` is that of the rate where the user names none.
    """

    start: float = 0.75
    schedule: str = "constant"


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """Linear probes on pooled features of at most ``stages`` stages: folds, images, and the values of C tried."""

    stages: int = 5
    folds: int = 5
    images: int = 2000
    strengths: tuple[float, ...] = (0.01, 0.1)
    max_iter: int = 100


@dataclass(frozen=True, kw_only=True)
class RangeTestConfig:
    """``--lr auto``: so many steps, the rate rising from ``lowest`` to ``highest`` times the optimizer's usual one."""

    steps: int = 100
    lowest: float = 1e-4
    highest: float = 10.0
    smoothing: float = 0.9
    stop_at: float = 4.0
    trim: int = 5


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """The training loop, where ``FinetuneConfig`` says ``None``.

    ``bare_optimizer`` trains networks without BatchNorm, and those where it follows less than half of what trains.
    Few images make few steps: there are more than ``epochs`` epochs, up to ``most_epochs``, where these would be fewer
    than ``least_steps`` steps (from random weights: ``scratch_steps``). ``patience`` ends a run early only under the
    schedules of ``stops_early``, which have no end of their own: a rate that decays does its best work at the end.
    Under policies that keep statistics, pretrained BatchNorm normalises by its running ones where there are fewer than
    ``batch_statistics_from`` training images.
    ``weight_decay`` is coupled (an L2 penalty) or decoupled, as the optimizer has it (None: ``OptimizerDefaults`` says
    how much); norms and biases are exempt.
    ``clip_norm`` bounds the gradient's norm; 0: it is not bounded. ``layer_decay`` multiplies the rate of each layer
    below the head once more.
    """

    optimizer: str = "momentum"
    bare_optimizer: str = "adamw"
    gradient_head_optimizer: str = "adamw"
    schedule: str = "cosine"
    epochs: int = 12
    least_steps: int = 200
    scratch_steps: int = 1000
    most_epochs: int = 60
    head_epochs: int = 100
    patience: int = 5
    stops_early: tuple[str, ...] = ("constant", "plateau")
    batch_statistics_from: int = 300
    batch_size: int = 32
    warmup_epochs: float = 0.5
    weight_decay: float | None = None
    clip_norm: float = 1.0
    layer_decay: float | None = None


@dataclass(frozen=True, kw_only=True)
class AutoPolicyConfig:
    """``--policy auto``: from so many training images on the last groups are enough, below it all layers train."""

    last_groups_from: int = 300
    last_groups: int = 3


@dataclass(frozen=True, kw_only=True)
class RollbackConfig:
    """``--on-nan rollback``: at most so often, each time at ``factor`` of the rate that it had before."""

    most: int = 3
    factor: float = 0.5

"""Configuration of one fine-tuning run, of several that belong together, and of a run with a teacher."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from tl_kit.config.augment_settings import CROP_MODES, AugmentConfig, CropModeConfig, MirrorConfig
from tl_kit.config.data_settings import BalanceConfig, BalanceMethod, DataConfig, DecodeConfig, StoreConfig
from tl_kit.config.machine_settings import CacheConfig, RuntimeConfig, SaveConfig
from tl_kit.config.optimization_settings import OptimizerDefaults, Options, ScheduleDefaults
from tl_kit.config.shared_flags import DATA, OUT, STRICT
from tl_kit.config.tracking_settings import TrackingConfig
from tl_kit.config.training_settings import (
    AdapterConfig,
    AutoPolicyConfig,
    GuardConfig,
    HeadConfig,
    KeptEpoch,
    LoopConfig,
    NanAnswer,
    ProbeConfig,
    RangeTestConfig,
    RegularizationConfig,
    RollbackConfig,
    Selection,
    SwaConfig,
)
from tl_kit.flags import Flag
from tl_kit.number_ranges import AT_LEAST_ONE, AT_LEAST_TWO, POSITIVE, SHARE, Range

__all__ = ["DistillConfig", "FinetuneConfig", "RunsConfig", "Vary", "VaryConfig"]

Vary: TypeAlias = Literal["seed", "folds", "bootstrap", "model", "policy", "crop-mode"]
_POLICIES = ("auto", "head", "last:1", "last:2", "last:3", "full", "lp-ft", "gradual", "lora", "bias", "norm")
_FAULTS = (
    *("class-missing", "split-or-class", "split-leak", "label-conflict", "group-leak", "class-above-split"),
    "unused-split",
)
_RATE = Range("a positive number, or auto", lambda value: value > 0)
_SEED = Range("from 0 to 2^63 - 1", lambda value: 0 <= value < 2**63)


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """A teacher, a checkpoint or an ensemble, whose probabilities a run learns beside the labels.

    ``temperature`` softens what teacher and student say before they are compared; ``weight`` is the share of that
    comparison in the loss, the rest is the labels'.
    """

    teacher: Path
    temperature: Annotated[float, POSITIVE] = 2.0
    weight: Annotated[float, SHARE] = 0.9


def _rate(text: str) -> float | Literal["auto"]:
    if text == "auto":
        return "auto"
    try:
        return float(text)
    except ValueError:
        raise ValueError("must be a positive number, or auto") from None


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """One fine-tuning run. ``None`` means: sized to the data, the policy or the model.

    Options of the optimizer, the schedule and the augmentation are a mapping, or texts ``key=value``. ``lr`` "auto"
    runs a range test. ``augment`` is a level's name, or all of it.

    ``crop_mode`` is timm's word for the way of an image into the model's square, which a checkpoint's ``config.json``
    keeps. "auto": the model's own, unless the images are not square and another suits them better (``crop_choice``).

    ``balance`` is what is done about classes of uneven size: "sampler" draws every class equally often, "loss" weights
    images by n / (k n_c). ``select`` is the validation figure by which the best epoch is kept. "auto": where classes
    are uneven (``uneven``), loss and balanced-accuracy; elsewhere none and accuracy.

    ``keep_epoch``: the epoch whose weights a run ends with, "last", or "best" by ``select``. "auto": the last where the
    rate decays to nothing and neither ``select`` nor ``patience`` is given. A run that ends early keeps its best.

    ``snapshots`` is the number of cycles of the rate, at the end of each of which a checkpoint of its own is kept;
    ``late`` that of the last epochs of which one is.

    ``allow`` names findings of the doctor's that shall not stop the run: class-above-split, class-missing, group-leak,
    label-conflict, split-leak, split-or-class. ``strict``: a file that cannot be used is an error, instead of being
    left out.
    """

    model: Annotated[
        str,
        Flag(
            panel="What trains",
            common=True,
            name="MODEL",
            complete="models",
            help="A timm name such as resnet18; `tlkit models PATTERN` finds others. auto: the best that is on this "
            "machine.",
        ),
    ]
    data: Annotated[Path, DATA]
    policy: Annotated[
        str,
        Flag(
            panel="What trains",
            common=True,
            complete=_POLICIES,
            help="What trains: head, last:K (groups, from the head), full, lp-ft[:K], gradual[:EPOCHS], lora[:R], "
            "bias, norm, auto.",
        ),
    ] = "auto"
    epochs: Annotated[
        int | None, AT_LEAST_ONE, Flag(panel="Optimisation", common=True, help="At most so many (default: by policy).")
    ] = None
    batch_size: Annotated[
        int | None,
        AT_LEAST_ONE,
        Flag(panel="Optimisation", common=True, help="Images a training step (default: by data)."),
    ] = None
    lr: Annotated[
        float | Literal["auto"] | None,
        _RATE,
        Flag(
            panel="Optimisation",
            common=True,
            metavar="RATE|auto",
            help="Learning rate (default: by optimizer and policy); auto: range test.",
            parse=_rate,
        ),
    ] = None
    optimizer: Annotated[
        str | None,
        Flag(
            panel="Optimisation",
            common=True,
            metavar="NAME",
            complete=(*OptimizerDefaults().options, "lbfgs", "newton"),
            help=f"{', '.join(OptimizerDefaults().options)}, or any of timm's; lbfgs, newton: a head (default: by "
            "policy).",
        ),
    ] = None
    optimizer_options: Annotated[
        Options,
        Flag(panel="Optimisation", name="--opt", metavar="KEY=VALUE", help="Option of the optimizer; may be repeated."),
    ] = ()
    schedule: Annotated[
        str | None,
        Flag(
            panel="Optimisation",
            metavar="NAME",
            complete=tuple(ScheduleDefaults().options),
            help=f"Decay of the rate: {', '.join(ScheduleDefaults().options)} (default: {LoopConfig.schedule}).",
        ),
    ] = None
    schedule_options: Annotated[
        Options,
        Flag(
            panel="Optimisation",
            name="--schedule-opt",
            metavar="KEY=VALUE",
            help="Option of the schedule; may be repeated.",
        ),
    ] = ()
    loop: LoopConfig = LoopConfig()
    regularization: RegularizationConfig = RegularizationConfig()
    swa: SwaConfig = SwaConfig()
    guard: GuardConfig = GuardConfig()
    adapters: AdapterConfig = AdapterConfig()
    snapshots: Annotated[
        int | None,
        AT_LEAST_ONE,
        Flag(
            panel="Optimisation",
            metavar="M",
            help="Cycles of the rate (--schedule cyclic), a checkpoint at each one's end.",
        ),
    ] = None
    late: Annotated[
        int | None,
        AT_LEAST_ONE,
        Flag(panel="Output", metavar="M", help="Keep a checkpoint of each of the last M epochs as well."),
    ] = None
    balance: Annotated[
        BalanceMethod,
        Flag(
            panel="Data",
            help="sampler: classes are drawn equally often; loss: weighted alike; auto: loss where one has "
            f"{BalanceConfig.uneven_from:g} times the images of another.",
        ),
    ] = "auto"
    uneven: BalanceConfig = BalanceConfig()
    select: Annotated[
        Selection,
        Flag(
            panel="Optimisation",
            help="Validation figure of the best epoch; auto: accuracy, or balanced-accuracy where uneven.",
        ),
    ] = "auto"
    keep_epoch: Annotated[
        KeptEpoch,
        Flag(
            panel="Optimisation",
            help="Epoch whose weights are kept: the last, or the best by --select; auto: last where the rate decays.",
        ),
    ] = "auto"
    augment: Annotated[
        AugmentConfig | str,
        Flag(
            panel="Regularisation",
            common=True,
            metavar="auto|none|light|standard|strong",
            complete=("auto", "none", "light", "standard", "strong"),
            help="How far images are varied.",
            parse=str,
        ),
    ] = "auto"
    augment_options: Annotated[
        Options,
        Flag(
            panel="Regularisation",
            name="--aug",
            metavar="KEY=VALUE",
            help=f"One of it: {', '.join(AugmentConfig.__dataclass_fields__)}; may be repeated.",
        ),
    ] = ()
    crop_mode: Annotated[
        str,
        Flag(
            panel="Data",
            metavar="auto|center|squash|border",
            complete=("auto", *CROP_MODES),
            help="Of images that are not square: the middle, all squashed, or all within a border; auto: what suits "
            "them.",
        ),
    ] = "auto"
    batchnorm: Annotated[
        Literal["auto", "train", "frozen"],
        Flag(
            panel="What trains",
            help="Normalise by the batch (train), or by pretrained statistics (default: by policy).",
        ),
    ] = "auto"
    weights: Annotated[
        str,
        Flag(
            panel="What trains",
            common=True,
            metavar="auto|none|FILE|hf-hub:ID",
            complete=("auto", "none"),
            help="Where from; auto: starter wheel, local cache, hub. none: random.",
        ),
    ] = "auto"
    img_size: Annotated[
        int | None,
        AT_LEAST_ONE,
        Flag(panel="What trains", common=True, help="Pixels a side (default: the model's own)."),
    ] = None
    seed: Annotated[
        int, _SEED, Flag(panel="Run", common=True, help="For the new head, the order of images and augmentation.")
    ] = 0
    split: DataConfig = DataConfig()
    allow: Annotated[
        tuple[str, ...],
        Flag(
            panel="Data",
            common=True,
            metavar="NAME",
            complete=_FAULTS,
            help="What shall not stop the run: class-missing, split-or-class, split-leak, label-conflict, group-leak, "
            "class-above-split, unused-split; may be repeated.",  # in an order in which no name is broken at its hyphen
        ),
    ] = ()
    strict: Annotated[bool, STRICT] = False
    decode: DecodeConfig = DecodeConfig()
    cache: CacheConfig = CacheConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    store: StoreConfig = StoreConfig()
    out: Annotated[Path | None, OUT] = None
    default_out: str = "ckpts"
    plot: Annotated[
        bool, Flag(panel="Output", common=True, help="Draw the run's curves into its folder (curves.png).")
    ] = False
    tracking: TrackingConfig = TrackingConfig()
    on_nan: Annotated[
        NanAnswer,
        Flag(
            panel="Optimisation",
            help="Where a loss or a weight is not finite: stop with the best epoch, or go back to the last good state "
            f"at {RollbackConfig.factor:g} of the rate, at most {RollbackConfig.most} times.",
        ),
    ] = "stop"
    rollback: RollbackConfig = RollbackConfig()
    save: SaveConfig = SaveConfig()
    patience: Annotated[int | None, AT_LEAST_ONE] = None
    head: HeadConfig = HeadConfig()
    range_test: RangeTestConfig = RangeTestConfig()
    probe: ProbeConfig = ProbeConfig()
    auto: AutoPolicyConfig = AutoPolicyConfig()
    crop_choice: CropModeConfig = CropModeConfig()
    mirror: MirrorConfig = MirrorConfig()
    distill: DistillConfig | None = None


@dataclass(frozen=True, kw_only=True)
class VaryConfig:
    """Members of an ensemble by one command: how many, and in what they differ."""

    members: int = 5
    vary: Vary = "seed"


@dataclass(frozen=True, kw_only=True)
class RunsConfig:
    """One run or several: one a fold, or one a member; or a folder whose runs ended early and go on.

    ``members`` and ``vary`` None: as ``VaryConfig`` has it, where the other is given.
    """

    folds: Annotated[
        int | None,
        AT_LEAST_TWO,
        Flag(
            panel="Run",
            common=True,
            metavar="K",
            help="Cross-validation: one run a fold; lists labels that may be wrong.",
        ),
    ] = None
    members: Annotated[
        int | None,
        AT_LEAST_TWO,
        Flag(
            panel="Run",
            common=True,
            metavar="N",
            help="Members of an ensemble: N runs on the same validation and test images.",
        ),
    ] = None
    vary: Annotated[
        Vary | None,
        Flag(
            panel="Run",
            common=True,
            help="What members differ in; of model, policy and crop-mode give names with commas between (default with "
            f"--members: {VaryConfig.vary}).",
        ),
    ] = None
    resume: Annotated[
        Path | None,
        Flag(
            panel="Run",
            common=True,
            metavar="RUN",
            help="Go on with the run in this folder, which ended early; takes no other option.",
        ),
    ] = None

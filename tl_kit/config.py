"""Every default value of tl-kit, in frozen dataclasses. The command line derives its own defaults from here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

__all__ = [
    "AugmentConfig",
    "AugmentLevels",
    "AutoPolicyConfig",
    "BalanceConfig",
    "BalanceMethod",
    "CacheConfig",
    "CopiesConfig",
    "CropConfig",
    "DataConfig",
    "DecodeConfig",
    "DemoConfig",
    "DemoMember",
    "DistillConfig",
    "DoctorConfig",
    "EnsembleConfig",
    "EstimateConfig",
    "FinetuneConfig",
    "FoldsConfig",
    "GroupConfig",
    "HeadConfig",
    "LeftOutConfig",
    "LikenessConfig",
    "LoopConfig",
    "McDropoutConfig",
    "MembersConfig",
    "ModelsConfig",
    "NanAnswer",
    "OptimizerDefaults",
    "Options",
    "PredictConfig",
    "ProbeConfig",
    "ProcessConfig",
    "RangeConfig",
    "RangeTestConfig",
    "RegularizationConfig",
    "RollbackConfig",
    "RuleFitConfig",
    "RuntimeConfig",
    "SaveConfig",
    "ScalingConfig",
    "ScheduleDefaults",
    "Selection",
    "ShortcutConfig",
    "SoupConfig",
    "StoreConfig",
    "SwaConfig",
    "TableConfig",
    "TrustConfig",
    "Vary",
    "VaryConfig",
]


BalanceMethod: TypeAlias = Literal["auto", "none", "sampler", "loss"]
NanAnswer: TypeAlias = Literal["stop", "rollback"]
Options: TypeAlias = Mapping[str, object] | tuple[str, ...]
Selection: TypeAlias = Literal["auto", "accuracy", "balanced-accuracy", "macro-f1", "nll"]
Vary: TypeAlias = Literal["seed", "folds", "bootstrap", "model", "policy"]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """How missing splits are made. Members of one ensemble must share ``split_seed``: it is not the run's seed.

    ``group_pattern`` is a regular expression: images in whose file names it finds the same text (that of its first
    bracketed part, where it has one) are one group, unless a CSV says otherwise. Near copies are kept on one side where
    there are at most ``near_images`` different files (their number squared is compared: 3 s for 20,000); 0: nowhere.
    """

    val_fraction: float = 0.2
    test_fraction: float = 0.2
    split_seed: int = 0
    group_pattern: str | None = None
    near_images: int = 20_000


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
class DecodeConfig:
    """Images of more pixels are refused: 5 to 25 bytes each must fit into memory while it is decoded, once a thread.

    So are JPEGs of more scans: a progressive one has about ten, and each goes over all pixels.
    """

    max_pixels: int = 2**27
    max_scans: int = 500


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
class LeftOutConfig:
    """How many files that a command leaves out are shown, a line each; the doctor lists all."""

    shown: int = 10


@dataclass(frozen=True, kw_only=True)
class LikenessConfig:
    """Images are alike if their perceptual hashes differ in at most ``hash_bits`` of 63 and their details correlate.

    The two thresholds were set by ``benchmarks/near_duplicates.py``; docs/data.md has its figures.
    """

    hash_bits: int = 12
    similarity: float = 0.97


@dataclass(frozen=True, kw_only=True)
class ShortcutConfig:
    """When a class counts as told without looking at what is shown.

    ``excess``: recall minus false-positive rate, at least; ``false_alarms``: the share of data sets on which chance may
    raise one, at most. A tree has ``leaf`` images a leaf at least, and is cross-validated over ``folds``.
    """

    excess: float = 0.5
    false_alarms: float = 1e-3
    folds: int = 5
    leaf: int = 5


@dataclass(frozen=True, kw_only=True)
class DoctorConfig:
    """From where on the doctor warns: images a class, largest over smallest class, pixels on the short side.

    An image is near-empty if 98 % of its thumbnail lies within ``empty_levels`` of the 256 levels, in every channel.
    """

    min_images: int = 5
    max_imbalance: float = 10.0
    min_side: int = 32
    empty_levels: float = 12.0
    likeness: LikenessConfig = LikenessConfig()
    shortcuts: ShortcutConfig = ShortcutConfig()


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
class ScalingConfig:
    """Features are divided by their deviations in training before a penalised fit, but by none that is too small.

    ``reference`` is a quantile of all channels' deviations; none is divided by less than ``floor`` of it, and channels
    below ``dead`` of it have no weight. docs/policies.md has the figures that chose the floor.
    """

    reference: float = 0.9
    floor: float = 0.1
    dead: float = 1e-4


@dataclass(frozen=True, kw_only=True)
class RuntimeConfig:
    """The device (``auto``: a GPU if there is one), the batch sizes and the precision of inference.

    ``precision`` is fp32, bf16 or ``auto``: bf16 where the processor has it and the network gains by it.
    ``mode`` "plain" turns off all that makes the hardware fast (memory that is kept, channels_last, bf16, trunk reuse),
    for comparison and for when it is suspected.

    ``compile`` "auto" uses torch.compile for training where it pays back within the run: it takes ``compile_seconds``
    and then saves ``compile_gain`` of the training time, in which ``compile_rate`` images of ``compile_side`` pixels a
    side are trained a second (all of it measured once, on 2 cores with EfficientNet-Lite0; nothing is timed in a run).
    """

    mode: Literal["auto", "plain"] = "auto"
    device: str = "auto"
    batch_size: int = 32
    gpu_batch_size: int = 256
    precision: str = "auto"
    compile: Literal["auto", "on", "off"] = "auto"
    compile_backend: str = "inductor"
    compile_seconds: float = 121.0
    compile_gain: float = 0.05
    compile_rate: float = 45.0
    compile_side: int = 224


@dataclass(frozen=True, kw_only=True)
class StoreConfig:
    """Decoded images are kept in memory up to this share of the free memory; the rest is decoded again when needed.

    Every ``check_seconds`` the free memory is looked at: where less than ``reserve`` bytes are left (on a small
    machine, less than that share of what was free), half of the images are given up.
    """

    memory_share: float = 0.3
    reserve: int = 500_000_000
    check_seconds: float = 0.5


@dataclass(frozen=True, kw_only=True)
class TrustConfig:
    """What a file that somebody else wrote may ask for: more is refused before any memory is taken.

    ``json_bytes`` of ``tlkit.json`` and its like (it names every image that was trained on); ``side`` is that of a
    model's images, in pixels; ``number`` the largest whole number, ``items`` the most numbers and texts, among a
    model's arguments; ``text`` the longest text, in characters; ``modules`` the most layers and tensors of a model.
    """

    json_bytes: int = 2**28
    side: int = 4096
    number: int = 1_000_000
    items: int = 10_000
    text: int = 1000
    modules: int = 200_000


@dataclass(frozen=True, kw_only=True)
class MembersConfig:
    """Members that share nothing take turns, each on as many decoded images as ``pixel_bytes`` hold.

    Their weights stay in memory while all but the largest member's take at most ``keep_bytes``, and are read again for
    each turn where they take more. Together both are a fifth of what torch and one member's activations take.
    """

    keep_bytes: int = 50_000_000
    pixel_bytes: int = 50_000_000


@dataclass(frozen=True, kw_only=True)
class CacheConfig:
    """The trunk's outputs on disk. ``directory`` None: ``$XDG_CACHE_HOME/tl-kit`` or ``~/.cache/tl-kit``.

    ``size_gb`` bounds all of it, in units of 10^9 bytes; 0 turns the cache off. ``views`` is the number of augmented
    views an image that ``last:K`` trains on; None: ``default_views``, fewer where the epochs or the bound ask for it.
    """

    directory: Path | None = None
    size_gb: float = 4.0
    views: int | None = None
    default_views: int = 4


@dataclass(frozen=True, kw_only=True)
class CropConfig:
    """Test-time crops: 1 (centre), 5 (and the four corners) or 10 (and the mirror image of each), at every scale.

    A scale multiplies the size to which the model's own evaluation resizes an image before it crops.
    """

    crops: int = 1
    scales: tuple[float, ...] = (1.0,)

    @property
    def views(self) -> int:
        """Crops an image in all, whose probabilities are averaged."""
        return self.crops * len(self.scales)

    def __str__(self) -> str:
        crops = "1 crop" if self.crops == 1 else f"{self.crops} crops"
        scales = ", ".join(f"{scale:g}" for scale in self.scales)
        return f"{crops} at scale{'s' if len(self.scales) > 1 else ''} {scales}"


@dataclass(frozen=True, kw_only=True)
class McDropoutConfig:
    """Dropout at test time: the seed of its noise, and how many rows (images times passes) run at once."""

    seed: int = 0
    rows: int = 4096


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """How a training image is varied, in this order.

    ``crop``: "resized" draws a share of the area (``crop_scale``) and an aspect ratio (``crop_ratio``) and resizes that
    piece; "short-side" resizes the short side to a length drawn from ``short_side`` (in sides of the input; the
    lecture's 256 to 480 for 224) and takes a random square; "none" is the crop of evaluation. ``flip`` is the
    probability of a mirror image. ``brightness`` and ``contrast`` are multiplied by a factor within so much of 1;
    ``lighting`` is the standard deviation of the shift along ImageNet's principal colours; ``erasing`` the probability
    that a rectangle is painted over in the mean colour.
    """

    crop: str = "resized"
    crop_scale: tuple[float, float] = (0.35, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    short_side: tuple[float, float] = (256 / 224, 480 / 224)
    flip: float = 0.5
    brightness: float = 0.0
    contrast: float = 0.0
    lighting: float = 0.0
    erasing: float = 0.0

    @property
    def active(self) -> bool:
        """Whether any two views of an image can differ."""
        chances = (self.flip, self.brightness, self.contrast, self.lighting, self.erasing)
        return self.crop != "none" or any(chance > 0 for chance in chances)


@dataclass(frozen=True, kw_only=True)
class AugmentLevels:
    """What ``--augment`` names, and from how many training images a class on ``auto`` takes which."""

    levels: Mapping[str, AugmentConfig] = field(
        default_factory=lambda: {
            "none": AugmentConfig(crop="none", flip=0.0),
            "light": AugmentConfig(crop_scale=(0.7, 1.0)),
            "standard": AugmentConfig(),
            "strong": AugmentConfig(crop_scale=(0.2, 1.0), brightness=0.4, contrast=0.4, lighting=0.1, erasing=0.25),
        }
    )
    light_below_per_class: int = 20


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
class BalanceConfig:
    """From where on ``auto`` takes classes for uneven: training images of the largest, in those of the smallest."""

    uneven_from: float = 3.0


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """Linear probes on pooled features of at most ``stages`` stages: folds, images, and the values of C tried."""

    stages: int = 5
    folds: int = 5
    images: int = 2000
    strengths: tuple[float, ...] = (0.01, 0.1)
    max_iter: int = 100


@dataclass(frozen=True, kw_only=True)
class EstimateConfig:
    """How much of a run is tried out to tell what all of it costs: images, and training steps after the first."""

    train_images: int = 64
    val_images: int = 32
    steps: int = 5


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
    Under the policies of ``keeps_statistics`` pretrained BatchNorm normalises by its running statistics where there are
    fewer than ``batch_statistics_from`` training images.
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
    keeps_statistics: tuple[str, ...] = ("full", "gradual", "lp-ft")
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
class SaveConfig:
    """How often a run saves its state, from which ``--resume`` goes on.

    ``every`` so many seconds, between two steps; 0: never. Less often where saving would take more than ``most_share``
    of the time.
    """

    every: float = 30.0
    most_share: float = 0.05


@dataclass(frozen=True, kw_only=True)
class RollbackConfig:
    """``--on-nan rollback``: at most so often, each time at ``factor`` of the rate that it had before."""

    most: int = 3
    factor: float = 0.5


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
class FoldsConfig:
    """Cross-validation: the number of folds, and how many suspect labels are shown (the file has all)."""

    folds: int = 5
    shown: int = 10


@dataclass(frozen=True, kw_only=True)
class VaryConfig:
    """Members of an ensemble by one command: how many, and in what they differ."""

    members: int = 5
    vary: Vary = "seed"


@dataclass(frozen=True, kw_only=True)
class RuleFitConfig:
    """How ensemble rules are fitted, and compared, on validation images.

    ``folds`` for predictions out of fold; ``greedy_rounds`` members added by forward selection, in each of
    ``greedy_bags`` random subsets of ``greedy_share`` of the members (1: all members, once); ``stack_c`` inverse
    penalties tried; ``auto`` leaves ``stack`` out where it would have more than ``stack_parameters``, and ``concat``
    where a step of its fit takes more than ``concat_multiplications`` (images x features x classes).
    """

    folds: int = 5
    greedy_rounds: int = 50
    greedy_bags: int = 1
    greedy_share: float = 0.5
    stack_c: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    stack_parameters: int = 20_000
    concat_multiplications: int = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class TemperatureConfig:
    """``prior_images``: so many images more, on which the predictions are right as often as they say, hold T near 1.

    Few validation images have too few mistakes to tell T. Chosen among 0 to 64, on photos apart from results'.
    """

    prior_images: float = 8.0


@dataclass(frozen=True, kw_only=True)
class SoupConfig:
    """Averages of weights: the ``alphas`` that wise-ft tries, the share of the fine-tuned model.

    BatchNorm's statistics are estimated on at most ``batchnorm_images`` training images.
    """

    alphas: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    batchnorm_images: int = 1024


@dataclass(frozen=True, kw_only=True)
class EnsembleConfig:
    """One ensemble of finished checkpoints. ``data`` ``None``: the folder that the members were trained on.

    ``calibrate``: scale by a temperature fitted on validation, where that lowers the NLL out of fold. ``mc_dropout``:
    so many forward passes with dropout a member, whose probabilities are averaged; 0: one without. ``soups`` is for
    averages of weights, ``head`` and ``cache`` for the head and the features of ``concat``, ``store`` for the memory
    that decoded images may take in both. ``strict`` as for ``FinetuneConfig``.
    """

    checkpoints: tuple[Path, ...]
    data: Path | None = None
    out: Path | None = None
    rule: str = "mean"
    calibrate: bool = True
    fit: RuleFitConfig = RuleFitConfig()
    soups: SoupConfig = SoupConfig()
    head: HeadConfig = HeadConfig()
    store: StoreConfig = StoreConfig()
    cache: CacheConfig = CacheConfig()
    seed: int = 0
    bootstrap: int = 2000
    default_out: str = "ensembles"
    crops: CropConfig = CropConfig()
    mc_dropout: int = 0
    strict: bool = False
    decode: DecodeConfig = DecodeConfig()
    runtime: RuntimeConfig = RuntimeConfig()


@dataclass(frozen=True, kw_only=True)
class ProcessConfig:
    """How often an OpenMP thread looks for the next piece of work before it sleeps (GNU's GOMP_SPINCOUNT).

    GNU's own default of 300,000 outlasts a time slice: with one core of two taken by another process, every
    operation waits for the scheduler, and inference takes 30 times longer. A setting of the user's is kept.

    ``fork_seconds``: the longest that a fork waits until other threads' networks have come to the end of a batch.
    """

    spin_count: int = 1000
    fork_seconds: float = 60.0


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


@dataclass(frozen=True, kw_only=True)
class OptimizerDefaults:
    """Where each optimizer starts.

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
                "mode": "min",
            },
        }
    )

"""A gradient run's settings: every ``None`` resolved from the policy, the data and the optimizer."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise

import torch

from tl_kit.config import FinetuneConfig, LoopConfig, RegularizationConfig, SwaConfig
from tl_kit.errors import ConfigError
from tl_kit.finetuning.run import Run
from tl_kit.optimization.cases import Case
from tl_kit.optimization.network_traits import ScaleFree, network_traits, shrinking_weights
from tl_kit.optimization.optimizers import create_optimizer, needs_second_order
from tl_kit.optimization.rules import Hyperparameters, hyperparameters
from tl_kit.optimization.schedules import Schedule, create_schedule, cycle_ends, parse_schedule_options
from tl_kit.zoo.heads import classifier_names, in_modules

__all__ = ["Settings", "bare_names", "head_names", "resolve", "rules_for"]

_SLACK = 1e-9  # shares such as 0.3 are not exact in binary


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A run's options with every ``None`` resolved. ``lr`` is what a range test starts from where there is one.

    ``snapshots``, ``late`` and ``swa`` are None if off. ``bare_decay`` is that of weights which nothing makes
    scale-free, None where they have ``weight_decay`` too. ``head_factor`` multiplies the classifier's rate.
    """

    optimizer: str
    optimizer_options: Mapping[str, object] = field(default_factory=dict)
    lr: float
    schedule: str
    schedule_options: Mapping[str, object] = field(default_factory=dict)
    warmup_epochs: float
    epochs: int
    patience: int
    batch_size: int
    weight_decay: float
    clip_norm: float
    layer_decay: float | None
    regularization: RegularizationConfig
    balance: str
    select: str
    augment: str
    flip: float
    batchnorm: str
    snapshots: int | None = None
    late: int | None = None
    swa: SwaConfig | None = None
    bare_decay: float | None = None
    head_factor: float = 1.0
    keep_epoch: str = "best"

    def to_dict(self) -> dict[str, object]:
        """Plain JSON."""
        return asdict(self)

    def with_lr(self, lr: float) -> Settings:
        """The same at another rate."""
        return replace(self, lr=lr)

    def schedule_over(self, images: int) -> Schedule:
        """The schedule over all epochs; onecycle brings its own warm-up. Raises ConfigError for its options."""
        total, warmup = self._lengths(images)
        return create_schedule(self.schedule, total_steps=total, warmup_steps=warmup, options=self.schedule_options)

    def cycle_ends(self, images: int) -> tuple[int, ...]:
        """Number of updates at the end of each cycle of the rate; the last ends with the run."""
        total, warmup = self._lengths(images)
        ends = cycle_ends(total_steps=total, warmup_steps=warmup, options=self.schedule_options)
        return tuple(last + 1 for last in ends)

    def swa_steps(self, images: int) -> frozenset[int]:
        """After how many updates the weights enter the uniform average: at the ends of late epochs, or of late cycles.

        None of them lies before the share of the run at which averaging starts.
        """
        if self.swa is None:
            return frozenset()
        steps = math.ceil(images / self.batch_size)
        first = min(math.floor(self.swa.start * self.epochs + _SLACK), self.epochs - 1) * steps  # one epoch at least
        ends = self.cycle_ends(images) if self.schedule == "cyclic" else range(steps, self.epochs * steps + 1, steps)
        return frozenset(end for end in ends if end > first)

    def _lengths(self, images: int) -> tuple[int, int]:
        """Steps of the run, and of the warm-up among them."""
        steps = math.ceil(images / self.batch_size)
        total = self.epochs * steps
        warmup = round(self.warmup_epochs * steps)
        if self.warmup_epochs == LoopConfig.warmup_epochs:  # the default gives way
            warmup = 0 if self.schedule == "onecycle" else min(warmup, total - 1)
        return total, warmup


def rules_for(run: Run) -> Hyperparameters:
    """The hyperparameters that the rules give this run, each with its reason. Raises ConfigError as they do."""
    case = Case(
        images=len(run.manifest.split("train")),
        classes=len(run.manifest.classes),
        pretrained=bool(run.weights.loaded),
        network=network_traits(run.model, run.trainable(sys.maxsize), head_names(run), _scale_free(run)),
        policy=run.policy,
    )
    return hyperparameters(case, run.config)


def resolve(run: Run) -> Settings:
    """The settings of a gradient method. Raises ConfigError for a name or an option that does not exist."""
    config, rules = run.config, rules_for(run)
    settings = Settings(
        optimizer=rules.optimizer.value,
        optimizer_options=rules.options,
        lr=rules.rate.value,
        schedule=rules.schedule.value,
        schedule_options=_schedule_options(config, rules.schedule.value),
        warmup_epochs=rules.warmup.value,
        epochs=rules.epochs.value,
        patience=rules.patience.value,
        batch_size=rules.batch_size.value,
        weight_decay=rules.decay.value,
        bare_decay=None if rules.bare_decay is None else rules.bare_decay.value,
        head_factor=rules.head_factor,
        keep_epoch=rules.kept_epoch.value,
        clip_norm=config.loop.clip_norm,
        layer_decay=rules.layer_decay.value,
        regularization=config.regularization,
        balance=run.balance.value,
        select=run.select.value,
        augment="none" if run.policy.head_only else run.augment_name,
        flip=0.0 if run.policy.head_only else run.augment.flip,
        batchnorm=rules.statistics.value,
        snapshots=config.snapshots,
        late=config.late,
        swa=config.swa if config.regularization.swa else None,
    )
    _check(run, settings)
    return settings


def _check(run: Run, settings: Settings) -> None:
    """Raise errors of the settings before a pass over the images costs any time."""
    mixing = run.config.regularization
    if settings.batch_size == 1 and (mixing.mixup or mixing.cutmix):
        raise ConfigError("--mixup, --cutmix: a batch of one image has none to mix it with; give a larger --batch-size")
    if run.config.runtime.compile == "on":
        if run.config.runtime.mode == "plain":
            raise ConfigError("--compile on: --runtime plain turns it off; leave one of them out")
        if needs_second_order(settings.optimizer):
            raise ConfigError("--compile on: compiled models have no second derivatives, which this --optimizer needs")
    anything = [torch.zeros(1, requires_grad=True)]
    create_optimizer(settings.optimizer, anything, lr=settings.lr, options=settings.optimizer_options)
    settings.schedule_over(len(run.manifest.split("train")))
    _check_kept(settings, len(run.manifest.split("train")))


def _check_kept(settings: Settings, images: int) -> None:
    """Raises ConfigError where the run is too short for its ``--late`` epochs, its ``--snapshots`` or its cycles."""
    if settings.late and settings.late > settings.epochs:
        raise ConfigError(f"--late {settings.late}: the run has {settings.epochs} epochs; give fewer, or more --epochs")
    total, warmup = settings._lengths(images)
    ends = settings.cycle_ends(images) if settings.schedule == "cyclic" else ()
    if not settings.snapshots:
        if 1 < len(ends) == total - warmup:
            raise ConfigError(
                f"--schedule-opt cycles: {total - warmup} steps after the warm-up make {len(ends)} cycles of one step "
                "each, so that the rate never falls; give fewer cycles, or more --epochs"
            )
        return
    lengths = [end - start for start, end in pairwise((warmup, *ends))]
    if len(lengths) != settings.snapshots or 2 * lengths[-1] < lengths[0]:  # a cut last cycle ends at a high rate
        raise ConfigError(
            f"--snapshots {settings.snapshots}: {total - warmup} steps after the warm-up make no such number of even "
            "cycles; give another one, or more --epochs"
        )


def _schedule_options(config: FinetuneConfig, schedule: str) -> dict[str, object]:
    """Those given, and the number of cycles that snapshots ask for. Raises ConfigError where the two disagree."""
    given = config.schedule_options
    options = dict(given) if isinstance(given, Mapping) else parse_schedule_options(schedule, given)
    if not config.snapshots:
        return options
    if options.setdefault("cycles", config.snapshots) != config.snapshots:
        raise ConfigError(
            f"--snapshots {config.snapshots}: --schedule-opt says {options['cycles']} cycles; leave one of them out"
        )
    return options


def bare_names(run: Run, settings: Settings) -> list[str]:
    """The weights that nothing makes scale-free and that a decay applies to, of all that trains; no classifier."""
    free = _scale_free(run).under(settings.batchnorm)
    return shrinking_weights(run.model, run.trainable(sys.maxsize), head_names(run), free)


def _scale_free(run: Run) -> ScaleFree:
    """Of the run's network; where the classifier alone trains, there is nothing to look for."""
    if run.trainable(sys.maxsize) <= head_names(run):
        return ScaleFree(always=frozenset(), batch=frozenset())
    return run.scale_free


def head_names(run: Run) -> frozenset[str]:
    """Names of the classifier's parameters."""
    heads = classifier_names(run.model)
    return frozenset(name for name, _ in run.model.named_parameters() if in_modules(name, heads))

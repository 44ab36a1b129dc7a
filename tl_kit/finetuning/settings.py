"""A gradient run's settings: every ``None`` resolved from the policy, the data and the optimizer."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import Any

import torch

from tl_kit.config import FinetuneConfig, LoopConfig, RegularizationConfig, SwaConfig
from tl_kit.errors import ConfigError
from tl_kit.finetuning.run import Run
from tl_kit.optimization.optimizers import (
    create_optimizer,
    default_lr,
    default_weight_decay,
    needs_second_order,
    parse_options,
)
from tl_kit.optimization.rules import RunFacts, bare_decay, bare_weights, decay, optimizer_name, rate_scale
from tl_kit.optimization.schedules import Schedule, create_schedule, cycle_ends, parse_schedule_options
from tl_kit.zoo.heads import classifier_names, in_modules

__all__ = ["Settings", "bare_names", "default_epochs", "facts_for", "least_steps", "resolve"]

_SLACK = 1e-9  # shares such as 0.3 are not exact in binary


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A run's options with every ``None`` resolved. ``lr`` is what a range test starts from where there is one.

    ``snapshots``, ``late`` and ``swa`` are None if off. ``bare_decay`` is that of weights which no BatchNorm follows,
    None where they have ``weight_decay`` too.
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
    batchnorm: str
    snapshots: int | None = None
    late: int | None = None
    swa: SwaConfig | None = None
    bare_decay: float | None = None

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
        """How many updates there have been when each cycle of the rate ends; the last ends with the run."""
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


def resolve(run: Run) -> Settings:
    """The settings of a gradient method. Raises ConfigError for a name or an option that does not exist."""
    config, loop, head = run.config, run.config.loop, run.policy.head_only
    images = len(run.manifest.split("train"))
    batch_size = min(config.batch_size or loop.batch_size, images)
    least = least_steps(run)
    epochs = config.epochs or (loop.head_epochs if head else default_epochs(images, batch_size, loop, least=least))
    facts = facts_for(run, steps=epochs * math.ceil(images / batch_size))
    name = _optimizer(run, facts)
    given = config.optimizer_options
    options = dict(given) if isinstance(given, Mapping) else parse_options(name, given)
    lr = _rate(run, facts, name)
    weight_decay, bare = _decays(run, facts, name, lr=lr, options=options)
    swa = config.swa if config.regularization.swa else None
    schedule = config.schedule or ("cyclic" if config.snapshots else swa.schedule if swa else loop.schedule)
    settings = Settings(
        optimizer=name,
        optimizer_options=options,
        lr=lr,
        schedule=schedule,
        schedule_options=_schedule_options(config, schedule),
        warmup_epochs=loop.warmup_epochs,
        epochs=epochs,
        patience=config.patience or (epochs if swa else _patience(schedule, epochs, loop)),
        batch_size=batch_size,
        weight_decay=weight_decay,
        bare_decay=bare,
        clip_norm=loop.clip_norm,
        layer_decay=loop.layer_decay,
        regularization=config.regularization,
        balance=run.balance.method,
        select=run.balance.select,
        augment="none" if head else run.augment_name,
        batchnorm=_batchnorm(run),
        snapshots=config.snapshots,
        late=config.late,
        swa=swa,
    )
    _check(run, settings)
    return settings


def _check(run: Run, settings: Settings) -> None:
    """What would fail later fails before a pass over the images is paid for."""
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
    """That the run is long enough for what is to be kept of it."""
    if settings.late and settings.late > settings.epochs:
        raise ConfigError(f"--late {settings.late}: the run has {settings.epochs} epochs; give fewer, or more --epochs")
    if not settings.snapshots:
        return
    (total, warmup), ends = settings._lengths(images), settings.cycle_ends(images)
    lengths = [end - start for start, end in pairwise((warmup, *ends))]
    if len(lengths) != settings.snapshots or 2 * lengths[-1] < lengths[0]:  # a cut last cycle ends at a high rate
        raise ConfigError(
            f"--snapshots {settings.snapshots}: {total - warmup} steps make no such number of even cycles; give "
            "another one, or more --epochs"
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


def least_steps(run: Run) -> int:
    """Below so many steps a run has more epochs. Random weights have everything to learn."""
    return run.config.loop.least_steps if run.weights.loaded else run.config.loop.scratch_steps


def default_epochs(images: int, batch_size: int, loop: LoopConfig, *, least: int) -> int:
    """Epochs over so many images: ``loop.epochs``, more where these would be fewer than ``least`` steps."""
    steps = math.ceil(images / batch_size)
    return min(loop.most_epochs, max(loop.epochs, math.ceil(least / steps)))


def _patience(schedule: str, epochs: int, loop: LoopConfig) -> int:
    """All epochs where the schedule says when the rate is low: what it is for happens at its end."""
    if schedule not in loop.stops_early:
        return epochs
    return max(loop.patience, math.ceil(loop.patience * epochs / loop.epochs))


def _batchnorm(run: Run) -> str:
    """Where images are few, pretrained layers keep their statistics, if all of them train or a fitted head is there.

    The head reads features that the running statistics normalise; those of a batch of 32 are others, and the pretrained
    features are lost before they have adapted. With more images they adapt, and a strong decay then regularises well.
    """
    loop = run.config.loop
    if run.config.batchnorm != "auto":
        return run.config.batchnorm
    few = len(run.manifest.split("train")) < loop.batch_statistics_from
    return "frozen" if few and run.weights.loaded and run.policy.keeps_statistics else "train"


def bare_names(run: Run) -> list[str]:
    """The weights that no BatchNorm follows and that a decay applies to, of all that the run trains; no classifier."""
    return bare_weights(run.model, run.trainable(sys.maxsize), _classifier(run))[0]


def facts_for(run: Run, *, steps: int) -> RunFacts:
    """What the default optimizer, rate and decay follow from."""
    bare, decayed = bare_weights(run.model, run.trainable(sys.maxsize), _classifier(run))
    return RunFacts(
        pretrained=bool(run.weights.loaded),
        head_only=run.policy.head_only,
        mostly_new=run.policy.mostly_new,
        decayed=decayed,
        bare=len(bare),
        statistics=_batchnorm(run),
        clips=run.config.loop.clip_norm > 0,
        steps=steps,
    )


def _classifier(run: Run) -> frozenset[str]:
    heads = classifier_names(run.model)
    return frozenset(name for name, _ in run.model.named_parameters() if in_modules(name, heads))


def _optimizer(run: Run, facts: RunFacts) -> str:
    """The one given, by the flag or in the loop's configuration; or the one that suits the network."""
    config, loop = run.config, run.config.loop
    if config.optimizer is not None:
        return config.optimizer
    if run.policy.head_only:
        return loop.gradient_head_optimizer
    bare = loop.bare_optimizer if loop.optimizer == LoopConfig.optimizer else loop.optimizer
    return optimizer_name(facts, normed=loop.optimizer, bare=bare)


def _decays(
    run: Run, facts: RunFacts, name: str, *, lr: float, options: Mapping[str, object]
) -> tuple[float, float | None]:
    """The decay of the run's weights, and of those that no BatchNorm follows where these get less."""
    if run.config.loop.weight_decay is not None:
        return run.config.loop.weight_decay, None
    highest = lr * run.config.range_test.highest if run.config.lr == "auto" else lr
    known: dict[str, Any] = {"lr": highest, "options": options}
    found = decay(facts, name, usual=default_weight_decay(name), **known)
    bare = bare_decay(facts, name, usual=found, **known)
    return found, bare if facts.bare and bare < found else None


def _rate(run: Run, facts: RunFacts, optimizer: str) -> float:
    """The rate given, or the optimizer's usual one as suits the network and the policy."""
    given = run.config.lr
    if given is None or given == "auto":
        return default_lr(optimizer, pretrained=False) * rate_scale(facts, optimizer)
    return float(given)

"""``plan``: the choices a run would make, the figures behind them, and the cost of the run."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from tl_kit.config import FinetuneConfig, Vary, VaryConfig
from tl_kit.finetuning.checks import head_config
from tl_kit.finetuning.choices.crop_mode import settle_crop_mode
from tl_kit.finetuning.choices.mirror_images import MirrorChoice, settle_mirror_images
from tl_kit.finetuning.choices.policy_choice import facts_of, settle_policy
from tl_kit.finetuning.closed_form import in_closed_form
from tl_kit.finetuning.preparation import prepare
from tl_kit.finetuning.run import Run
from tl_kit.finetuning.settings import Settings, resolve, rules_for
from tl_kit.freezing.facts import Facts
from tl_kit.freezing.policies import is_auto
from tl_kit.machine.ambient import undisturbed
from tl_kit.machine.process_group import alone
from tl_kit.optimization.cases import AS_GIVEN
from tl_kit.optimization.param_groups import layer_scales
from tl_kit.optimization.rules import Hyperparameters
from tl_kit.plain_values import takes_plain_values
from tl_kit.planning.estimate import Estimate, estimate
from tl_kit.planning.planned_images import first_images
from tl_kit.reporting import SILENT, Reporter

__all__ = ["Choice", "Plan", "plan"]


@dataclass(frozen=True)
class Choice:
    """One choice, and the figures behind it."""

    name: str
    value: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Plan of the run that ``finetune`` would make. ``settings`` is empty for a head in closed form.

    ``offers`` are sentences on other commands that promise better figures.
    """

    model: str
    policy: str
    facts: Facts
    choices: tuple[Choice, ...]
    settings: dict[str, object]
    steps: int
    estimate: Estimate
    offers: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {**asdict(self), "facts": self.facts.to_dict(), "choices": [asdict(choice) for choice in self.choices]}


@undisturbed()
@alone()
@takes_plain_values
def plan(
    config: FinetuneConfig,
    *,
    folds: int | None = None,
    members: int | None = None,
    vary: Vary = VaryConfig.vary,
    reporter: Reporter = SILENT,
) -> Plan:
    """Plan a run for the data without running it. Only the cache is written, which the run then uses.

    ``folds``: plan the first run of :func:`cross_validate`, on the images that it trains on. ``vary`` "folds" and
    "bootstrap": likewise the first of so many ``members`` of :func:`finetune_members`. Raises the errors of
    ``finetune`` for the same configuration.
    """
    images = first_images(config, folds=folds, members=members, vary=vary, reporter=reporter)
    run = prepare(config, reporter, manifest=images, dry=True)
    try:
        started = run.clock.seconds()["total"]
        crop_mode = settle_crop_mode(run, offers=True)
        facts = facts_of(run, together=True)
        if is_auto(config.policy) or crop_mode.compared:
            started += run.clock.stages["train"]  # the probes' fits, which the run repeats
        run, reason = settle_policy(run, facts)
        run, mirror = settle_mirror_images(run)
        settings = None if in_closed_form(run) else resolve(run)
        choices = (
            _policy(run, settings, reason),
            Choice("crop mode", crop_mode.mode, crop_mode.reason),
            *_choices(run, settings, mirror),
        )
        return Plan(
            model=config.model,
            policy=str(run.policy),
            facts=facts,
            choices=choices,
            settings={} if settings is None else settings.to_dict(),
            steps=0 if settings is None else _steps(run, settings) * settings.epochs,
            estimate=estimate(run, settings, started=started),
            offers=tuple(filter(None, [crop_mode.offer])),
        )
    finally:
        run.cleanup.close()


def _policy(run: Run, settings: Settings | None, reason: str) -> Choice:
    sizes = {name: parameter.numel() for name, parameter in run.model.named_parameters()}
    trained = sum(sizes[name] for name in run.trainable(0 if settings is None else settings.epochs - 1))
    return Choice("policy", f"{run.policy}, {trained:,} of {sum(sizes.values()):,} parameters", reason)


def _choices(run: Run, settings: Settings | None, mirror: MirrorChoice | None) -> list[Choice]:
    classes = Choice("class balance", run.balance.value, run.balance.reason)
    if settings is None:
        return [_penalty(run), classes]
    rules = rules_for(run)
    steps = _steps(run, settings)
    choices = [
        _rate(run, settings, rules),
        Choice("schedule", settings.schedule, rules.schedule.reason),
        Choice("optimizer", settings.optimizer, rules.optimizer.reason),
        _decay(settings, rules),
        Choice("epochs", f"{settings.epochs} ({steps * settings.epochs} steps)", rules.epochs.reason),
        Choice("patience", f"{settings.patience} epochs", rules.patience.reason),
        Choice("epoch kept", settings.keep_epoch, rules.kept_epoch.reason),
        Choice("best epoch by", settings.select.replace("_", " "), run.select.reason),
        Choice("batch size", str(settings.batch_size), rules.batch_size.reason),
        classes,
        Choice("augmentation", settings.augment, _augmentation(run, rules, mirror)),
    ]
    layers = rules.network.batchnorms
    if layers:
        choices.append(Choice("BatchNorm", settings.batchnorm, f"{layers} layers: {rules.statistics.reason}"))
    return choices


def _penalty(run: Run) -> Choice:
    head, images = head_config(run.config), len(run.manifest.split("train"))
    if head.c is not None:
        return Choice("penalty", f"C = {head.c:g}", f"{AS_GIVEN}; no rate and no epochs")
    path = f"C from {min(head.strengths) / images:.2g} to {max(head.strengths) / images:.2g}"
    how = f"NLL in cross-validation of the {images:,} training images"
    return Choice("penalty", path, f"{how}; no rate and no epochs")


def _rate(run: Run, settings: Settings, rules: Hyperparameters) -> Choice:
    value, reason = f"{settings.lr:.3g}, {settings.optimizer}, {settings.schedule}", rules.rate.reason
    if run.config.lr == "auto":
        return Choice("learning rate", f"range test from {value}", reason)
    if settings.layer_decay is not None:
        scales = layer_scales(run.model, layer_decay=settings.layer_decay)
        lowest = settings.lr * min(scales[name] for name in run.trainable(settings.epochs - 1))
        reason += f"; times {settings.layer_decay:g} for each layer below the head, down to {lowest:.2g}"
    if settings.head_factor != 1:
        reason += f"; the new head at {settings.lr * settings.head_factor:.2g}"
    return Choice("learning rate", value, reason)


def _decay(settings: Settings, rules: Hyperparameters) -> Choice:
    value, reason = f"{settings.weight_decay:.2g}", rules.decay.reason
    if rules.bare_decay is not None:
        value += f" ({rules.bare_decay.value:.2g} where no norm follows)"
        reason += f"; where no norm follows, {rules.bare_decay.reason}"
    return Choice("weight decay", value, reason)


def _augmentation(run: Run, rules: Hyperparameters, mirror: MirrorChoice | None) -> str:
    """The reason for the level of augmentation, and for mirror images."""
    given = run.config.augment != "auto" or run.config.augment_options
    level = AS_GIVEN if given else rules.augmentation.reason
    if mirror is None:
        return level
    kept = "no mirror images" if mirror.harmful(run.config.mirror) else "mirror images"
    return f"{level}; {kept}: {mirror.figures}"


def _steps(run: Run, settings: Settings) -> int:
    """The number of steps in an epoch."""
    return math.ceil(len(run.manifest.split("train")) / settings.batch_size)

"""``plan``: what a run would do, the figures behind each choice, and what it would cost."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from tl_kit.config import AugmentLevels, FinetuneConfig, LoopConfig
from tl_kit.finetuning.closed_form import in_closed_form
from tl_kit.finetuning.policy_choice import facts_of, settle_policy
from tl_kit.finetuning.preparation import prepare
from tl_kit.finetuning.run import Run
from tl_kit.finetuning.settings import Settings, facts_for, least_steps, resolve
from tl_kit.freezing.facts import Facts
from tl_kit.freezing.policies import is_auto
from tl_kit.machine.ambient import undisturbed
from tl_kit.machine.process_group import alone
from tl_kit.optimization.optimizers import default_lr
from tl_kit.optimization.param_groups import layer_scales
from tl_kit.plain_values import takes_plain_values
from tl_kit.planning.estimate import Estimate, estimate
from tl_kit.reporting import SILENT, Reporter

__all__ = ["Choice", "Plan", "plan"]


@dataclass(frozen=True)
class Choice:
    """One thing that is decided, and the figures behind it."""

    name: str
    value: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What ``finetune`` would do with the same configuration. ``settings`` is empty for a head in closed form."""

    model: str
    policy: str
    facts: Facts
    choices: tuple[Choice, ...]
    settings: dict[str, object]
    steps: int
    estimate: Estimate

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {**asdict(self), "facts": self.facts.to_dict(), "choices": [asdict(choice) for choice in self.choices]}


@undisturbed()
@alone()
@takes_plain_values
def plan(config: FinetuneConfig, *, reporter: Reporter = SILENT) -> Plan:
    """Size a run to the data without running it: nothing is written but the cache, which the run then finds.

    Raises what ``finetune`` raises for the same configuration.
    """
    run = prepare(config, reporter, dry=True)
    try:
        started = run.clock.seconds()["total"]
        facts = facts_of(run)
        if is_auto(config.policy):
            started += run.clock.stages["train"]  # the probes' fits, which the run repeats
        reason = settle_policy(run, facts)
        settings = None if in_closed_form(run) else resolve(run)
        choices = (_policy(run, settings, reason), *_choices(run, facts, settings))
        return Plan(
            model=config.model,
            policy=str(run.policy),
            facts=facts,
            choices=choices,
            settings={} if settings is None else settings.to_dict(),
            steps=0 if settings is None else _steps(run, settings) * settings.epochs,
            estimate=estimate(run, settings, started=started),
        )
    finally:
        run.cleanup.close()


def _policy(run: Run, settings: Settings | None, reason: str) -> Choice:
    sizes = {name: parameter.numel() for name, parameter in run.model.named_parameters()}
    trained = sum(sizes[name] for name in run.trainable(0 if settings is None else settings.epochs - 1))
    return Choice("policy", f"{run.policy}, {trained:,} of {sum(sizes.values()):,} parameters", reason)


def _choices(run: Run, facts: Facts, settings: Settings | None) -> list[Choice]:
    if settings is None:
        strengths = run.config.head.strengths
        path = f"{strengths[0]:g} to {strengths[-1]:g}"
        val = len(run.manifest.split("val"))
        return [Choice("penalty", f"C from {path}", f"lowest NLL on {val} validation images; no rate and no epochs")]
    return [
        _rate(run, settings),
        _optimizer(run, settings),
        _epochs(run, settings),
        Choice("batch size", str(settings.batch_size), f"{_steps(run, settings)} steps for {facts.images} images"),
        _augmentation(run, facts, settings),
        *_batchnorm(run, settings),
    ]


def _optimizer(run: Run, settings: Settings) -> Choice:
    """Which, at what decay, and whether BatchNorm follows what it decays."""
    facts = facts_for(run, steps=_steps(run, settings) * settings.epochs)
    value = f"{settings.optimizer}, decay {settings.weight_decay:.2g}"
    if settings.bare_decay is not None:
        value += f" ({settings.bare_decay:.2g} without BatchNorm)"
    if run.policy.head_only:
        return Choice("optimizer", value, "as you said" if run.config.optimizer else "for a head alone")
    count = f"BatchNorm follows {facts.decayed - facts.bare} of {facts.decayed} trained weight tensors"
    if run.config.optimizer or run.config.loop.optimizer != LoopConfig.optimizer:
        return Choice("optimizer", value, f"as you said; {count}")
    return Choice("optimizer", value, f"{count}: {'at least half' if facts.normed else 'less than half'}")


def _rate(run: Run, settings: Settings) -> Choice:
    usual = default_lr(settings.optimizer, pretrained=False)
    value = f"{settings.lr:.3g}, {settings.optimizer}, {settings.schedule}"
    if run.config.lr == "auto":
        return Choice("learning rate", f"range test from {value}", "as you said")
    reason = (
        "as you said" if run.config.lr else f"{usual:g} from scratch, times {settings.lr / usual:g} for this policy"
    )
    if settings.layer_decay is not None:
        scales = layer_scales(run.model, layer_decay=settings.layer_decay)
        lowest = settings.lr * min(scales[name] for name in run.trainable(settings.epochs - 1))
        reason += f"; times {settings.layer_decay:g} for each layer below the head, down to {lowest:.2g}"
    return Choice("learning rate", value, reason)


def _epochs(run: Run, settings: Settings) -> Choice:
    steps, loop, least = _steps(run, settings), run.config.loop, least_steps(run)
    value = f"{settings.epochs} ({steps * settings.epochs} steps)"
    if run.config.epochs:
        return Choice("epochs", value, "as you said")
    if run.policy.head_only:
        return Choice("epochs", value, f"{loop.head_epochs} where the head alone trains")
    if settings.epochs == loop.epochs:
        return Choice("epochs", value, f"{loop.epochs}, which are {least} steps or more")
    if settings.epochs == loop.most_epochs:
        return Choice("epochs", value, f"at most {loop.most_epochs}: {least} steps would be more")
    return Choice("epochs", value, f"{steps} steps an epoch: more than {loop.epochs}, for {least} steps")


def _augmentation(run: Run, facts: Facts, settings: Settings) -> Choice:
    limit = AugmentLevels().light_below_per_class
    given = run.config.augment != "auto" or run.config.augment_options
    reason = "as you said" if given else f"{facts.per_class:.0f} images a class: light below {limit}"
    if settings.augment == "none" and not given:
        reason = "the head is fitted to images as evaluation sees them"
    return Choice("augmentation", settings.augment, reason)


def _batchnorm(run: Run, settings: Settings) -> list[Choice]:
    """Only of models that have BatchNorm."""
    layers = sum(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in run.model.modules())
    if not layers:
        return []
    reason = "as you said"
    if run.config.batchnorm == "auto":
        limit, images = run.config.loop.batch_statistics_from, len(run.manifest.split("train"))
        reason = "each batch's own statistics, in the layers that train"
        if run.policy.keeps_statistics and run.weights.loaded:
            kept = "the pretrained statistics stay" if settings.batchnorm == "frozen" else "each batch's own"
            reason = f"{kept}: {images} training images, {'below' if images < limit else 'from'} {limit} on"
    return [Choice("BatchNorm", settings.batchnorm, f"{layers} layers: {reason}")]


def _steps(run: Run, settings: Settings) -> int:
    """An epoch's."""
    return math.ceil(len(run.manifest.split("train")) / settings.batch_size)

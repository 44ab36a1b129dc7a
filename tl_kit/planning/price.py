"""Price of a run on images that have been scanned: its policy by the rules, its epochs, its seconds."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from tl_kit.config import FinetuneConfig
from tl_kit.data.manifest import Manifest
from tl_kit.finetuning.checks import as_head
from tl_kit.finetuning.choices.crop_mode import hides_much, settle_crop_mode
from tl_kit.finetuning.choices.mirror_images import images_asked
from tl_kit.finetuning.choices.policy_choice import facts_of
from tl_kit.finetuning.preparation import prepare
from tl_kit.finetuning.settings import resolve
from tl_kit.freezing.auto import choose_policy
from tl_kit.freezing.policies import is_auto
from tl_kit.machine.process_group import alone
from tl_kit.planning.estimate import estimate, least_seconds
from tl_kit.reporting import SILENT, Reporter

__all__ = ["Price", "price_of", "uncropped"]


@dataclass(frozen=True, kw_only=True)
class Price:
    """Price of a run: the policy that the rules give, its epochs, and its seconds in all.

    ``tried``: by a trial; False where the seconds are the least that the run takes.
    """

    policy: str
    epochs: int
    seconds: float
    tried: bool = True


@alone()
def price_of(
    manifest: Manifest,
    config: FinetuneConfig,
    *,
    row: float = 0.0,
    most: float = math.inf,
    reporter: Reporter = SILENT,
) -> Price:
    """The price of a run that trains by gradient; under ``auto``, by the policy that it would take.

    A few steps are run on a few images; nothing is written but the cache. Where ``row``, the seconds of an image's pass
    forward, says that the run takes more than ``most`` seconds, no step is run, and the seconds are the least that it
    takes. Raises the errors of ``finetune``.
    """
    policy = _chosen(manifest, config) if is_auto(config.policy) else config.policy
    run = prepare(replace(config, policy=policy), reporter, manifest=manifest, dry=True)
    try:
        started = run.clock.seconds()["total"]
        settle_crop_mode(run)
        settings, asked = resolve(run), images_asked(run) * row
        price = Price(
            policy=policy,
            epochs=settings.epochs,
            seconds=least_seconds(run, settings, row=row) + asked,
            tried=False,
        )
        if price.seconds > most:
            return price
        found = estimate(run, settings, started=started, reporter=reporter)
        return replace(price, seconds=found.seconds + asked, tried=True)
    finally:
        run.cleanup.close()


def _chosen(manifest: Manifest, config: FinetuneConfig) -> str:
    """The policy that ``auto`` takes by the rules alone."""
    run = prepare(as_head(config), SILENT, manifest=manifest, dry=True)
    try:
        return str(choose_policy(facts_of(run, probes=False), config.auto)[0])
    finally:
        run.cleanup.close()


@alone()
def uncropped(manifest: Manifest, config: FinetuneConfig) -> bool:
    """True where a centre crop would hide so much of the images that a second crop mode is worth a try."""
    run = prepare(as_head(config), SILENT, manifest=manifest, dry=True)
    try:
        return hides_much(run)
    finally:
        run.cleanup.close()

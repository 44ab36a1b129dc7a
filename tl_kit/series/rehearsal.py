"""Rehearsal: raises the start-up errors of all runs before the first run costs any time."""

from __future__ import annotations

from collections.abc import Sequence

from tl_kit.config import FinetuneConfig
from tl_kit.data.manifest import Manifest
from tl_kit.errors import ConfigError
from tl_kit.finetuning.closed_form import in_closed_form
from tl_kit.finetuning.preparation import prepare
from tl_kit.finetuning.settings import resolve
from tl_kit.freezing.policies import is_auto
from tl_kit.reporting import SILENT

__all__ = ["rehearse"]


def rehearse(configs: Sequence[FinetuneConfig], manifest: Manifest, vary: str) -> None:
    """Build each model, apply each policy and resolve each option once; nothing is written, nothing trained.

    Raises the errors of the runs, and ConfigError if they would differ only in a seed on which nothing depends.
    """
    distinct = {(config.model, config.policy): config for config in reversed(configs)}
    for config in distinct.values():
        run = prepare(config, SILENT, manifest=manifest, dry=True)
        try:
            if is_auto(config.policy):  # the run decides it from the images
                continue
            run.trainable()
            if not in_closed_form(run):
                resolve(run)
            elif vary == "seed":
                raise ConfigError(
                    "--vary seed: a head that is fitted in closed form is the same for every seed; use --vary "
                    "bootstrap, folds or model, or a gradient method (such as --epochs 20)"
                )
        finally:
            run.cleanup.close()

"""Passes of a head: how many images lack features, and the seconds of each, by a trial on a few of them."""

from __future__ import annotations

from dataclasses import dataclass

from tl_kit.config import FinetuneConfig
from tl_kit.data.manifest import Manifest
from tl_kit.finetuning.checks import as_head
from tl_kit.finetuning.choices.crop_mode import hides_much
from tl_kit.finetuning.closed_form import head_run
from tl_kit.finetuning.preparation import prepare
from tl_kit.machine.process_group import alone
from tl_kit.planning.trial import closed_form_rates
from tl_kit.reporting import Reporter

__all__ = ["HeadPasses", "head_passes"]


@dataclass(frozen=True, kw_only=True)
class HeadPasses:
    """``row``: seconds to decode an image and pass it through the network. The rest are numbers of images.

    ``train`` and ``val``: those whose features the cache does not have. ``compared``: training images that pass once
    more where crop modes are compared. ``own``: the network's own crop mode.
    """

    row: float
    train: int
    val: int
    compared: int
    own: str


@alone()
def head_passes(
    manifest: Manifest, config: FinetuneConfig, *, row: float | None = None, reporter: Reporter
) -> HeadPasses | None:
    """The passes of a head on ``config.model``'s features. None where the network has none to reuse.

    ``row``: seconds an image, if they are known, and no trial is needed. Nothing is written. Raises the errors of
    ``finetune``.
    """
    run = prepare(as_head(config), reporter, manifest=manifest, dry=True)
    try:
        head, reuse = head_run(run)
        if reuse is None:
            return None
        train, val = (manifest.split(split) for split in ("train", "val"))
        compared = config.crop_mode == "auto" and run.weights.loaded and hides_much(run)
        if row is None:
            rates = closed_form_rates(head, reporter)
            row = rates.decode + rates.row
        return HeadPasses(
            row=row,
            train=len(reuse.missing(train)),
            val=len(reuse.missing(val)),
            compared=min(len(train), run.config.crop_choice.images) if compared else 0,
            own=run.preprocessing.crop_mode,
        )
    finally:
        run.cleanup.close()

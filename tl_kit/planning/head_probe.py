"""A probe of a network: how good a head on its features is on training images that the head has not seen."""

from __future__ import annotations

from tl_kit.config import FinetuneConfig
from tl_kit.data.manifest import Manifest
from tl_kit.finetuning.checks import as_head
from tl_kit.finetuning.choices.crop_mode import held_out_head, settle_crop_mode
from tl_kit.finetuning.closed_form import head_run
from tl_kit.finetuning.preparation import prepare
from tl_kit.machine.process_group import alone
from tl_kit.reporting import Reporter
from tl_kit.training.held_out import HeldOut

__all__ = ["probe_network"]


@alone()
def probe_network(manifest: Manifest, config: FinetuneConfig, *, reporter: Reporter) -> HeldOut | None:
    """Cross-validated predictions of the training images by heads on ``config.model``'s features.

    Validation and test images take no part. The features stay in the cache, where a run finds them. None where the
    network has no pretrained weights, no linear head, or a class has too few images. Raises the errors of ``finetune``.
    """
    run = prepare(as_head(config), reporter, manifest=manifest, dry=True)
    try:
        settle_crop_mode(run)
        head, reuse = head_run(run)
        if reuse is None or not run.weights.loaded:
            return None
        reuse.fill("train")
        samples = head.manifest.split("train")
        return held_out_head(run, reuse.rows(samples).float().flatten(1).numpy(), samples)
    finally:
        run.cleanup.close()

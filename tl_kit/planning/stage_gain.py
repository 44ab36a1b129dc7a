"""Gain of earlier stages: whether a network's last layers have dropped what tells these classes apart.

Evci et al. 2022, "Head2Toe: Utilizing Intermediate Representations for Better Generalization": where features of all
stages together do better than the last ones, so does fine-tuning.
"""

from __future__ import annotations

from dataclasses import replace

from tl_kit.config import FinetuneConfig
from tl_kit.data.manifest import Manifest, labels_of, spread
from tl_kit.finetuning.checks import as_head
from tl_kit.finetuning.choices.stage_rows import HEAD_INPUT, stage_rows
from tl_kit.finetuning.preparation import prepare
from tl_kit.freezing.probes import ALL_STAGES, all_stages, probe_stages
from tl_kit.machine.process_group import alone
from tl_kit.reporting import SILENT, Reporter

__all__ = ["earlier_stages_add"]


@alone()
def earlier_stages_add(manifest: Manifest, config: FinetuneConfig, *, images: int, reporter: Reporter = SILENT) -> bool:
    """True where a probe of all stages' features beats one of the head's input by more than its standard error.

    Both are cross-validated on at most ``images`` training images, on the same folds. False where the network has no
    stages, or a class has too few images to validate on. Raises the errors of ``finetune``.
    """
    others = tuple(sample for sample in manifest.samples if sample.split != "train")
    part = replace(manifest, samples=(*spread(manifest.split("train"), images), *others))
    run = prepare(as_head(config), reporter, manifest=part, dry=True)
    try:
        rows = stage_rows(run)
        if len(rows) < 2:
            return False
        reporter.start("probes of the stages", 2)
        found = probe_stages(
            {HEAD_INPUT: rows[HEAD_INPUT], ALL_STAGES: all_stages(rows)},
            labels_of(run.manifest.split("train")),
            config=config.probe,
            seed=config.split.split_seed,
        )
    finally:
        run.cleanup.close()
    probes = {probe.stage: probe for probe in found}
    if len(probes) < 2:
        return False
    return probes[ALL_STAGES].beats(probes[HEAD_INPUT])

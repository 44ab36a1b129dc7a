"""A run's teacher: its probabilities on the training images, and batches that have them beside the labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from tl_kit.combining.calibration import tempered
from tl_kit.combining.class_order import align_classes
from tl_kit.config import DistillConfig
from tl_kit.data.manifest import Manifest
from tl_kit.errors import DataError
from tl_kit.finetuning.run import Run
from tl_kit.inference.held_out_heads import with_held_out_heads
from tl_kit.inference.predictor import load
from tl_kit.reporting import Reporter
from tl_kit.storage.seen_images import Uses

if TYPE_CHECKING:
    pass

__all__ = ["soft_targets", "teach"]


def teach(run: Run) -> None:
    """Ask the run's teacher, where it has one that has not been asked yet."""
    if run.config.distill is not None and run.soft_targets is None:
        with run.clock("features"):
            run.soft_targets, run.taught_by = soft_targets(run.config.distill, run.manifest, run)


def soft_targets(config: DistillConfig, manifest: Manifest, run: Run) -> tuple[Mapping[str, Tensor], Uses]:
    """The teacher's probabilities (k,), float32, of each training image by its digest, softened: p^(1/T), scaled.

    With them, what the teacher has seen. Images as evaluation sees them, combined as the teacher itself predicts
    (crops, rule, calibration), by heads that were not fitted to validation images, since these score the student.
    Raises CheckpointError for a teacher that cannot be opened, and MemberError for one with other classes.
    """
    predictor = with_held_out_heads(load(config.teacher, decode=run.config.decode, runtime=run.config.runtime))
    _, (_, columns) = align_classes([manifest.classes, predictor.classes], [str(manifest.root), str(config.teacher)])
    samples = list({sample.digest: sample for sample in manifest.split("train")}.values())
    stack, failures = predictor.member_probabilities(
        [sample.path for sample in samples], digests=[sample.digest for sample in samples], reporter=run.reporter
    )
    kept = [index for index in range(len(samples)) if index not in failures]
    if not kept:
        raise DataError(f"{manifest.root}: none of the {len(samples)} training images can be decoded")
    probabilities = predictor.combine(stack[:, kept])[:, columns]
    _say(config, probabilities, [samples[index].label for index in kept], run.reporter)
    soft = torch.from_numpy(tempered(probabilities, config.temperature)).float()
    return {samples[index].digest: row for index, row in zip(kept, soft, strict=True)}, predictor.uses


def _say(config: DistillConfig, probabilities: np.ndarray, labels: list[int], reporter: Reporter) -> None:
    hits = (probabilities.argmax(axis=1) == np.array(labels)).mean()
    reporter.message(
        f"teacher {config.teacher}: on the {len(labels):,} training images {100 * hits:.1f} % accurate, its highest "
        f"probability {100 * probabilities.max(axis=1).mean():.1f} % on average; softened by temperature "
        f"{config.temperature:g}, weight {config.weight:g}"
    )

"""A run's teacher: its probabilities on the training images, and batches that have them beside the labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from tl_kit.combining.calibration import tempered
from tl_kit.combining.class_order import align_classes
from tl_kit.config import DistillConfig
from tl_kit.errors import DataError
from tl_kit.finetuning.run import Run, Taught
from tl_kit.inference.held_out_heads import with_held_out_heads
from tl_kit.inference.predictor import load
from tl_kit.reporting import Reporter

__all__ = ["ask_teacher", "teach"]


def teach(run: Run) -> Run:
    """The run with its teacher's probabilities, where it has a teacher."""
    if run.config.distill is None:
        return run
    with run.clock("features"):
        return replace(run, taught=ask_teacher(run.config.distill, run))


def ask_teacher(config: DistillConfig, run: Run) -> Taught:
    """The teacher's probabilities (k,), float32, of each training image by its digest, softened: p^(1/T), scaled.

    With them, what the teacher has seen. Images as evaluation sees them, combined as the teacher itself predicts
    (crops, rule, calibration), by heads that were not fitted to validation images, since these score the student.
    Raises CheckpointError for a teacher that cannot be opened, and MemberError for one with other classes.
    """
    manifest = run.manifest
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
    return Taught({samples[index].digest: row for index, row in zip(kept, soft, strict=True)}, predictor.uses)


def _say(config: DistillConfig, probabilities: np.ndarray, labels: list[int], reporter: Reporter) -> None:
    hits = (probabilities.argmax(axis=1) == np.array(labels)).mean()
    reporter.message(
        f"teacher {config.teacher}: on the {len(labels):,} training images {100 * hits:.1f} % accurate, its highest "
        f"probability {100 * probabilities.max(axis=1).mean():.1f} % on average; softened by temperature "
        f"{config.temperature:g}, weight {config.weight:g}"
    )

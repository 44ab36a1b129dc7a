"""A run's teacher: its probabilities on the training images, and batches that have them beside the labels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tl_kit.api.predictor import load
from tl_kit.api.run import Run
from tl_kit.config import DistillConfig, FinetuneConfig
from tl_kit.data.manifest import Manifest
from tl_kit.ensembling.alignment import align_classes
from tl_kit.ensembling.calibration import tempered
from tl_kit.errors import ConfigError, DataError
from tl_kit.reporting import Reporter
from tl_kit.training.seen import Uses
from tl_kit.training.task import Indices

if TYPE_CHECKING:
    from tl_kit.api.sources import Source

__all__ = ["TaughtSource", "check_distill", "soft_targets", "teach"]


def check_distill(config: FinetuneConfig) -> None:
    """Raises ConfigError for numbers out of range, and for what a run with a teacher cannot have."""
    distill = config.distill
    if distill is None:
        return
    if not 0 < distill.temperature < math.inf:
        raise ConfigError(f"distill: temperature {distill.temperature}: must be a finite number above 0")
    if not 0 <= distill.weight <= 1:
        raise ConfigError(f"distill: weight {distill.weight}: must be from 0 to 1")
    if config.regularization.mixup or config.regularization.cutmix:
        raise ConfigError("--mixup, --cutmix: the teacher has seen no mixed images; leave them out of a distillation")


def teach(run: Run) -> None:
    """Ask the run's teacher, where it has one that has not been asked yet."""
    if run.config.distill is not None and run.soft_targets is None:
        with run.clock("features"):
            run.soft_targets, run.taught_by = soft_targets(run.config.distill, run.manifest, run)


def soft_targets(config: DistillConfig, manifest: Manifest, run: Run) -> tuple[Mapping[str, Tensor], Uses]:
    """The teacher's probabilities (k,), float32, of each training image by its digest, softened: p^(1/T), scaled.

    With them, what the teacher has seen. Images as evaluation sees them, combined as the teacher itself predicts
    (crops, rule, calibration). Raises CheckpointError for a teacher that cannot be opened, and MemberError for one with
    other classes.
    """
    predictor = load(config.teacher, decode=run.config.decode, runtime=run.config.runtime)
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


class TaughtSource:
    """Another source's batches, whose labels become (n, 2, k): the true ones, and the teacher's probabilities."""

    def __init__(self, run: Run, source: Source) -> None:
        teach(run)
        assert run.soft_targets is not None
        self.source = source
        self.module: nn.Module = source.module
        self.classes = len(run.manifest.classes)
        rows = [run.soft_targets[sample.digest] for sample in run.manifest.split("train")]
        self.soft = torch.stack(rows).to(run.runtime.device)

    def batch(self, indices: Indices, epoch: int) -> tuple[Tensor, Tensor]:
        inputs, labels = self.source.batch(indices, epoch)
        soft = self.soft[torch.from_numpy(indices % len(self.soft)).to(self.soft.device)]
        return inputs, torch.stack([functional.one_hot(labels, self.classes).to(soft.dtype), soft], dim=1)

    def logits(self, split: str) -> Tensor:
        return self.source.logits(split)

"""``distill``: trains one model on an ensemble's probabilities, and compares the two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from tl_kit import metrics
from tl_kit.combining.bootstrap import Gain, paired_gain
from tl_kit.combining.class_order import align_classes
from tl_kit.config import DecodeConfig, DistillConfig, FinetuneConfig, RuntimeConfig
from tl_kit.data.manifest import Sample, labels_of
from tl_kit.errors import ConfigError, DataError, WeightsError
from tl_kit.file_kinds import may_be_there
from tl_kit.finetuning.finetune import finetune_on
from tl_kit.finetuning.result import FinetuneResult, Trained
from tl_kit.inference.held_out_heads import held_out_probabilities
from tl_kit.inference.made_splits import split_config
from tl_kit.inference.predictor import Predictor, load
from tl_kit.machine.ambient import undisturbed
from tl_kit.plain_values import takes_plain_values
from tl_kit.reporting import SILENT, Reporter
from tl_kit.zoo.locate import locate
from tl_kit.zoo.names import resolve
from tl_kit.zoo.starter import WAYS_OUT, WAYS_OUT_OF_A_STUDENT

__all__ = ["STUDENT", "Comparison", "Distillation", "check_student", "distill", "student_config"]

STUDENT = "student"
"""The folder of the student in an ensemble's folder."""

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


class Comparison(TypedDict):
    """Scores on the same test images, which no model was trained on or selected with; gains are the student's.

    ``best_member``: the teacher's best member by validation accuracy; its gain, scores and path are None if the teacher
    is a single model. ``disagreement``: the share of images for which student and teacher predict different classes.
    """

    images: int
    student: dict[str, float]
    teacher: dict[str, float]
    best_member: dict[str, float] | None
    best_member_checkpoint: str | None
    over_teacher: Gain
    over_best_member: Gain | None
    disagreement: float


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """The student's run, and its comparison with the teacher: None without test images new to the teacher."""

    run: FinetuneResult
    teacher: str
    temperature: float
    weight: float
    comparison: Comparison | None

    @property
    def checkpoint(self) -> str:
        """The student's folder."""
        return self.run.checkpoint

    @property
    def learned(self) -> float:
        """The share of the student's weights that learned from the teacher: 0 where the head guard kept the head.

        The guard's head is fitted to the labels alone.
        """
        return 1.0 if self.run.guard is None else float(self.run.guard["alpha"])

    @property
    def status(self) -> str:
        """The status of the run: ``finished`` or ``interrupted``."""
        return self.run.status

    def to_dict(self) -> dict[str, Any]:
        """The run's plain JSON, with the comparison."""
        own = {name: getattr(self, name) for name in ("teacher", "temperature", "weight", "learned", "comparison")}
        return {**self.run.to_dict(), **own}


@takes_plain_values
def check_student(model: str) -> None:
    """Raises ConfigError or WeightsError for a model without pretrained weights, before the ensemble is made.

    Weights that are not on this machine are downloaded.
    """
    try:
        locate(resolve(model), "auto")
    except WeightsError as error:
        raise WeightsError(str(error).replace(WAYS_OUT, WAYS_OUT_OF_A_STUDENT)) from error


@takes_plain_values
def student_config(
    teacher: Path | str,
    model: str,
    *,
    data: Path | None = None,
    seed: int = 0,
    decode: DecodeConfig = DecodeConfig(),
    runtime: RuntimeConfig = RuntimeConfig(),
) -> FinetuneConfig:
    """Configuration of an ensemble's student: the members' images and splits, and their image size if it is the same.

    ``data``: the folder to use if the members' own images are missing. Raises CheckpointError for a folder that is
    neither an ensemble nor a checkpoint, and DataError if there are no images.
    """
    predictor = load(teacher, mc_dropout=0, runtime=runtime)
    root = predictor.members[0].meta.get("data", {}).get("root")
    images = Path(root) if root and may_be_there(root) else data
    if images is None:
        raise DataError(f"{root}: the members' data is no longer there; name its folder with --data")
    sizes = {member.meta.get("config", {}).get("img_size") for member in predictor.members}
    return FinetuneConfig(
        model=model,
        data=images,
        split=split_config(predictor),
        img_size=sizes.pop() if len(sizes) == 1 else None,
        out=Path(teacher) / STUDENT,
        seed=seed,
        decode=decode,
        runtime=runtime,
        distill=DistillConfig(teacher=Path(teacher).absolute()),
    )


@undisturbed()
@takes_plain_values
def distill(config: FinetuneConfig, *, samples: int = 2000, reporter: Reporter = SILENT) -> Distillation:
    """Fine-tune ``config.model`` on the labels and on the probabilities of ``config.distill.teacher``.

    The teacher predicts each training image once, under the evaluation transform; the loss is
    :func:`distillation_loss`. Everything else, including exceptions and Ctrl-C, is as in :func:`finetune`, except that
    the ``head`` policy trains the head by gradient descent. ``samples``: resamples of the bootstrap for the intervals.
    """
    if config.distill is None:
        raise ConfigError("distill: names no teacher; give FinetuneConfig(distill=DistillConfig(teacher=...))")
    if samples < 1:
        raise ConfigError(f"distill(samples) {samples}: must be at least 1")
    trained = finetune_on(None, config, reporter=reporter)
    teacher = load(config.distill.teacher, decode=config.decode, runtime=config.runtime)
    return Distillation(
        run=trained.result,
        teacher=str(config.distill.teacher),
        temperature=config.distill.temperature,
        weight=config.distill.weight,
        comparison=_compare(trained, teacher, config, samples=samples, reporter=reporter),
    )


def _compare(
    trained: Trained, teacher: Predictor, config: FinetuneConfig, *, samples: int, reporter: Reporter
) -> Comparison | None:
    images = trained.manifest.split("test")
    known = set(teacher.uses.seen(images))
    rows = [index for index, sample in enumerate(images) if sample not in known]
    if known:
        reporter.message(
            f"the teacher has seen {len(known)} of the {len(images)} test images: they are left out of the comparison, "
            "and the student's own score on them is no test either"
        )
    if not rows:
        return None
    labels, options = labels_of(images)[rows], {"samples": samples, "seed": config.seed}
    student = metrics.softmax(trained.logits["test"].numpy().astype(np.float64))[rows]
    members, pooled = _predictions(teacher, [images[row] for row in rows], trained, reporter)
    best = _best_member(teacher, trained, reporter) if len(members) > 1 else None
    return {
        "images": len(rows),
        "student": metrics.summary(student, labels),
        "teacher": metrics.summary(pooled, labels),
        "best_member": None if best is None else metrics.summary(members[best], labels),
        "best_member_checkpoint": None if best is None else str(teacher.members[best].path),
        "over_teacher": paired_gain(student, [pooled], labels, **options),
        "over_best_member": None if best is None else paired_gain(student, [members[best]], labels, **options),
        "disagreement": float((student.argmax(axis=1) != pooled.argmax(axis=1)).mean()),
    }


def _predictions(
    teacher: Predictor, images: Sequence[Sample], trained: Trained, reporter: Reporter
) -> tuple[FloatArray, FloatArray]:
    """Predictions of the members (m, n, k) and of the ensemble (n, k), columns in the student's order."""
    manifest = trained.manifest
    _, (_, columns) = align_classes([manifest.classes, teacher.classes], [str(manifest.root), str(teacher.path)])
    stack, failures = held_out_probabilities(teacher, images, reporter=reporter)
    for index, reason in failures.items():
        raise DataError(f"{images[index].path}: {reason}; start anew")
    return stack[:, :, columns], teacher.combine(stack)[:, columns]


def _best_member(teacher: Predictor, trained: Trained, reporter: Reporter) -> int:
    """The member of highest validation accuracy; ties go to the lower NLL."""
    images = trained.manifest.split("val")
    labels = labels_of(images)
    members, _ = _predictions(teacher, images, trained, reporter)
    scores = [(-metrics.accuracy(member, labels), metrics.nll(member, labels)) for member in members]
    return min(range(len(scores)), key=lambda index: scores[index])

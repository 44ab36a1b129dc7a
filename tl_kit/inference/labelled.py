"""Predictions of an ensemble's members for labelled images, without images that cannot be decoded."""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tl_kit.combining.predictions import SplitPredictions
from tl_kit.data.exclusions import tell_left_out
from tl_kit.data.manifest import Exclusion, Manifest, Sample
from tl_kit.errors import DataError
from tl_kit.inference.exported import ExportedModel
from tl_kit.inference.held_out_heads import held_out_probabilities
from tl_kit.inference.kept_outputs import keep_outputs, known_outputs, outputs_key
from tl_kit.inference.predictor import Predictor
from tl_kit.reporting import Reporter

__all__ = ["Predicted", "key_of", "labels_for", "predict_labelled"]


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """The decodable ``samples``, the members' predictions for them, and the seconds that one sample took.

    ``left_out`` are the samples that cannot be decoded.
    """

    samples: list[Sample]
    predictions: SplitPredictions
    left_out: list[Exclusion]
    seconds: float


def predict_labelled(
    predictor: Predictor | ExportedModel,
    manifest: Manifest,
    samples: Sequence[Sample],
    *,
    data: Path | str,
    reporter: Reporter,
    reuse: bool = False,
) -> Predicted | None:
    """Each member's predictions of the manifest's ``samples``; images of ``data`` that cannot be decoded are reported.

    Validation images that a member was fitted to in the end are predicted by what was fitted without them.
    ``reuse``: images whose outputs the command has kept are not predicted again.
    Returns None if no image can be decoded. Raises DataError for classes that the predictor does not know.
    """
    if not samples:
        return None
    started = time.perf_counter()
    labels = labels_for(samples, manifest, predictor, Path(data))
    stack, failures = _probabilities(predictor, samples, reporter, reuse=reuse)
    left_out = list(manifest.named(Exclusion(samples[index].path, reason) for index, reason in failures.items()))
    tell_left_out(left_out, data, reporter)
    kept = [index for index in range(len(samples)) if index not in failures]
    if not kept:
        return None
    return Predicted(
        samples=[samples[index] for index in kept],
        predictions=SplitPredictions(members=stack[:, kept], labels=labels[kept]),
        left_out=left_out,
        seconds=(time.perf_counter() - started) / len(kept),
    )


def _probabilities(
    predictor: Predictor | ExportedModel, samples: Sequence[Sample], reporter: Reporter, *, reuse: bool
) -> tuple[NDArray[np.float64], dict[int, str]]:
    if not isinstance(predictor, Predictor):
        paths, digests = [sample.path for sample in samples], [sample.digest for sample in samples]
        return predictor.member_probabilities(paths, digests=digests, reporter=reporter)
    key = key_of(predictor)
    known = known_outputs(key, samples) if reuse else {}
    rest = [index for index in range(len(samples)) if index not in known]
    chosen = [samples[index] for index in rest]
    found, failed = held_out_probabilities(predictor, chosen, reporter=reporter)
    sound = [row for row in range(len(rest)) if row not in failed]
    keep_outputs(key, [chosen[row] for row in sound], found[:, sound])
    if not known:
        return found, failed
    stack = np.empty((len(predictor.members), len(samples), len(predictor.classes)))
    stack[:, rest] = found
    for index, row in known.items():
        stack[:, index] = row
    return stack, {rest[row]: reason for row, reason in failed.items()}


def key_of(predictor: Predictor) -> Hashable | None:
    """Key of the predictor's outputs among those that are kept; None where none are."""
    return outputs_key(
        [member.path for member in predictor.members],
        classes=predictor.classes,
        precisions=[scorer.runtime.precision for scorer in predictor.scorers],
        crops=predictor.crops,
        mc_dropout=predictor.mc_dropout,
    )


def labels_for(
    samples: Sequence[Sample], manifest: Manifest, predictor: Predictor | ExportedModel, data: Path
) -> NDArray[np.int64]:
    """Class indices (n,) in the predictor's order. Raises DataError if the data has a class that it does not know."""
    position = {name: index for index, name in enumerate(predictor.classes)}
    unknown = [name for name in manifest.classes if name not in position]
    if unknown:
        raise DataError(f"{data}: has classes that the model does not know: {', '.join(unknown[:5])}")
    return np.array([position[manifest.classes[sample.label]] for sample in samples], dtype=np.int64)

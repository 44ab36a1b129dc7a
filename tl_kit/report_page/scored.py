"""Scored images: the predictions of a result for the labelled images of one split."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tl_kit.combining.calibration import fit_temperature, tempered
from tl_kit.config import DecodeConfig, RuntimeConfig
from tl_kit.data.exclusions import scan_images
from tl_kit.data.manifest import Exclusion, Manifest
from tl_kit.errors import CheckpointError, DataError
from tl_kit.inference.kept_outputs import known_outputs
from tl_kit.inference.labelled import key_of, predict_labelled
from tl_kit.inference.made_splits import default_split, split_config
from tl_kit.inference.predictor import Predictor, load
from tl_kit.report_page.saved_results import Saved
from tl_kit.reporting import Reporter
from tl_kit.score_kinds import OUT_OF_FOLD
from tl_kit.storage.seen_images import kind_of

__all__ = ["Scored", "Suspect", "score", "score_folds", "suspects_in"]

FloatArray = NDArray[np.float64]
_SUM_TOLERANCE = 1e-6  # of a row's probabilities
PREDICTIONS, SUSPECTS = "out_of_fold.csv", "suspects.csv"


@dataclass(frozen=True, kw_only=True)
class Scored:
    """n images with their labels (n,) and probabilities (n, k) in the order of ``classes``.

    ``members`` (m, n, k) are those of an ensemble's members, and ``before`` (n, k) those without its temperature; both
    None for a single model. ``trial`` (n, k): those with a temperature that the result does not have, fitted to other
    images: to validation, or for each fold to the others; None where there are none. ``models`` (n,): the number of the
    model that predicted an image, for folds. ``manifest``: all images; None if they were not looked at. ``left_out``:
    files that could not be used. ``data``: where the images are. ``kept``: True if nothing was predicted anew.
    ``own``: False where ``data`` are not the images of the result itself.
    """

    split: str
    kind: str
    classes: tuple[str, ...]
    paths: tuple[Path, ...]
    labels: NDArray[np.int64]
    probabilities: FloatArray
    members: FloatArray | None = None
    before: FloatArray | None = None
    temperature: float = 1.0
    trial: FloatArray | None = None
    models: NDArray[np.int64] | None = None
    manifest: Manifest | None = None
    predictor: Predictor | None = None
    left_out: tuple[Exclusion, ...] = ()
    data: Path | None = None
    kept: bool = False
    own: bool = True

    @property
    def predicted(self) -> NDArray[np.int64]:
        """The predicted class of each image (n,)."""
        found: NDArray[np.int64] = self.probabilities.argmax(axis=1)
        return found


@dataclass(frozen=True, kw_only=True)
class Suspect:
    """A row of ``suspects.csv``: an image whose label is probably wrong."""

    path: str
    label: str
    suggested: str
    p_label: float
    p_suggested: float


def score(saved: Saved, data: Path, *, decode: DecodeConfig, runtime: RuntimeConfig, reporter: Reporter) -> Scored:
    """Score the default split of ``data``, as ``evaluate`` does: test, else val. Raises DataError without images.

    What the command has predicted before is not predicted again (:func:`keeping_outputs`).
    """
    assert saved.model is not None
    predictor = load(saved.model, decode=decode, runtime=runtime)
    made = split_config(predictor, data)
    manifest = scan_images(data, made, decode=decode, strict=False, reporter=reporter, trainable=False)
    split = default_split(manifest, predictor)
    samples = manifest.samples if split == "all" else manifest.split(split)
    known = {samples[index].digest for index in known_outputs(key_of(predictor), samples)}
    found = predict_labelled(predictor, manifest, samples, data=data, reporter=reporter, reuse=True)
    if found is None:
        raise DataError(f"{data}: no image of {split} can be decoded")
    stack, several = found.predictions.members, len(predictor.members) > 1
    trial, val = None, manifest.split("val")
    if split == "test" and not several and val:
        other = predict_labelled(predictor, manifest, val, data=data, reporter=reporter, reuse=True)
        if other is not None:
            scale = fit_temperature(predictor.combine(other.predictions.members), other.predictions.labels)
            trial = tempered(predictor.combine(stack), scale)
    return Scored(
        split=split,
        kind=kind_of(found.samples, predictor.uses),
        classes=predictor.classes,
        paths=tuple(sample.path for sample in found.samples),
        labels=found.predictions.labels,
        probabilities=predictor.combine(stack),
        members=stack if several else None,
        before=predictor.rule.pool(stack) if predictor.rule.temperature != 1 else None,
        temperature=predictor.rule.temperature,
        trial=trial,
        manifest=manifest,
        predictor=predictor,
        left_out=(*manifest.exclusions, *found.left_out),
        data=data,
        own=_is_own(saved, data, manifest),
        kept=all(sample.digest in known for sample in found.samples),
    )


def _is_own(saved: Saved, data: Path, manifest: Manifest) -> bool:
    """True where the images lie where the run found them, or are the same elsewhere."""
    if saved.data is None or saved.data.resolve() == data.resolve():
        return True
    return manifest.content_hash() in [run.text("data", "content") for run in saved.runs]


def score_folds(saved: Saved, data: Path | None) -> Scored:
    """The out-of-fold predictions that the folds stored, with paths in ``data`` (None: as they are written).

    Raises CheckpointError if the file is missing or broken.
    """
    path, classes = saved.folder / PREDICTIONS, saved.classes
    base = None if data is None else data if data.is_dir() else data.parent
    position = {name: place for place, name in enumerate(classes)}
    most = len(saved.record.listed("folds", of=dict)) or len(saved.runs)
    paths, labels, folds, rows = [], [], [], []
    try:
        for row in _rows(path):
            values = np.array([row[f"p_{name}"] for name in classes], dtype=np.float64)
            if not (values >= 0).all() or not abs(values.sum() - 1) <= _SUM_TOLERANCE:
                raise ValueError("no probabilities")
            if not 1 <= int(row["fold"]) <= most:
                raise ValueError("no such fold")
            paths.append(Path(row["path"]) if base is None else base / row["path"])
            labels.append(position[row["label"]])
            folds.append(int(row["fold"]))
            rows.append(values)
    except (KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: line {len(rows) + 2} is broken; the file was changed") from error
    probabilities = np.array(rows, dtype=np.float64)
    if not len(rows):
        raise CheckpointError(f"{path}: has no predictions; the file was changed")
    truth, numbers = np.array(labels, dtype=np.int64), np.array(folds, dtype=np.int64)
    return Scored(
        split=OUT_OF_FOLD,
        kind=OUT_OF_FOLD,
        classes=classes,
        paths=tuple(paths),
        labels=truth,
        probabilities=probabilities,
        trial=_tempered_by_others(probabilities, truth, numbers),
        models=numbers,
    )


def _tempered_by_others(
    probabilities: FloatArray, labels: NDArray[np.int64], folds: NDArray[np.int64]
) -> FloatArray | None:
    """Each fold's probabilities with the temperature that is fitted to the other folds; None for a single fold."""
    numbers = np.unique(folds)
    if len(numbers) < 2:
        return None
    found: FloatArray = probabilities.copy()
    for number in numbers:
        own = folds == number
        found[own] = tempered(probabilities[own], fit_temperature(probabilities[~own], labels[~own]))
    return found


def suspects_in(saved: Saved) -> list[Suspect]:
    """The rows of ``suspects.csv``, the most suspect first; empty where there is no such file."""
    path = saved.folder / SUSPECTS
    if not path.is_file():
        return []
    try:
        return [
            Suspect(
                path=row["path"],
                label=row["label"],
                suggested=row["suggested"],
                p_label=float(row["p_label"]),
                p_suggested=float(row["p_suggested"]),
            )
            for row in _rows(path)
        ]
    except (KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: is broken; the file was changed") from error


def _rows(path: Path) -> Iterator[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            yield from csv.DictReader(file)
    except (OSError, csv.Error) as error:
        raise CheckpointError(f"{path}: cannot be read ({error})") from error

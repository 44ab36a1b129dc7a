"""``cross_validate``: one run per fold, so that every image is scored by a model that has not seen it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tl_kit import metrics
from tl_kit.config import FinetuneConfig, FoldsConfig, RunsConfig
from tl_kit.data.folds import fold_manifests, pool_of
from tl_kit.data.manifest import Manifest
from tl_kit.display import figure
from tl_kit.finetuning.checks import check_folded
from tl_kit.finetuning.result import Trained
from tl_kit.machine.ambient import undisturbed
from tl_kit.plain_values import takes_plain_values
from tl_kit.reporting import SILENT, Reporter
from tl_kit.score_kinds import OUT_OF_FOLD
from tl_kit.series.out_of_fold import OutOfFold, Suspect, gather, suspects_of, write_predictions, write_suspects
from tl_kit.series.records import SeriesRecords
from tl_kit.series.series import Part, PartRun, Series, parts_html, run_fields
from tl_kit.storage.atomic import write_json
from tl_kit.storage.checkpoint import FOLDS
from tl_kit.storage.config_json import to_json

__all__ = ["CrossValidation", "Fold", "cross_validate"]

PREDICTIONS, SUSPECTS = "out_of_fold.csv", "suspects.csv"


@dataclass(frozen=True, kw_only=True)
class Fold(PartRun):
    """One run of a cross-validation. ``test``: its scores on the images of the fold, which select nothing.

    ``test`` is None if none of the fold's images could be decoded.
    """

    fold: int


@dataclass(frozen=True, kw_only=True)
class CrossValidation:
    """Result of a cross-validation over all folds.

    ``out_of_fold``: scores over all images together, each predicted by a model in which it had no part (``kind`` says
    so). ``mean`` and ``standard_error`` are over the scores of the folds (sample standard deviation / √folds). Folds
    share training images, so the standard error tends to be too small (Bengio & Grandvalet 2004). ``predictions`` holds
    the probabilities; the JSON form only names their file.
    """

    folder: str
    model: str
    classes: tuple[str, ...]
    images: int
    kind: str
    folds: tuple[Fold, ...]
    out_of_fold: dict[str, float]
    mean: dict[str, float]
    standard_error: dict[str, float]
    suspects: tuple[Suspect, ...]
    predictions: OutOfFold
    files: dict[str, str]
    seconds: dict[str, float]

    def _repr_html_(self) -> str:
        """Each fold's scores and those of all images out of fold, for a notebook."""
        parts = [(f"fold {fold.fold}", fold) for fold in self.folds]
        scores = ", ".join(f"{name} {figure(name, self.out_of_fold[name])}" for name in ("accuracy", "nll", "ece"))
        lines = [f"all {self.images:,} images, {self.kind}: {scores}", f"suspect labels: {len(self.suspects)}"]
        return parts_html(f"{len(parts)} folds of {self.model}", parts, [*lines, f"folder: {self.folder}"])

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON; ``suspects`` is the number of suspects, which the file lists."""
        kept = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "predictions"}
        folds = [to_json(fold) for fold in self.folds]
        return {**kept, "classes": list(self.classes), "folds": folds, "suspects": len(self.suspects)}


@undisturbed()
@takes_plain_values
def cross_validate(
    config: FinetuneConfig,
    *,
    folds: int = FoldsConfig.folds,
    reporter: Reporter = SILENT,
    unfinished: SeriesRecords | None = None,
) -> CrossValidation:
    """Fine-tune once per fold, on the images outside of it; ``out/fold-1`` ... are ordinary checkpoints.

    Training and validation images are pooled and divided into stratified folds; groups and copies stay together
    (:func:`fold_manifests`). A fold is its run's test split. Validation images come from the other folds, so no image
    helps to select the model that scores it. A test split that came with the data is set aside; if splits would have
    been made, all images take part. ``out`` then gets ``out_of_fold.csv`` (every image's probabilities, from the model
    that has not seen it), ``suspects.csv`` (labels that are probably wrong, by :func:`suspect_labels`), and
    ``folds.json``.

    Raises the errors of :func:`finetune`, and ConfigError for a number of folds that the images do not allow. Ctrl-C
    and errors leave the finished folds; without any, no folder is left. ``unfinished``: the records of this
    cross-validation if it ended early and is resumed.
    """
    check_folded(config, folds)
    series = Series(config, "folds", reporter=reporter, pooled=True)
    manifest = series.manifest
    parts = [
        Part(folder=f"fold-{number}", title=f"fold {number} of {folds}", config=config, manifest=part)
        for number, part in enumerate(fold_manifests(manifest, folds, config.split), start=1)
    ]
    _announce(manifest, folds, series.reporter)
    with series.trained(parts, RunsConfig(folds=folds), unfinished=unfinished) as (folder, done):
        result = _collect(config, manifest, folder, done, series.seconds())
        if series.main:
            _write(config, folder, result)
    return result


def _announce(manifest: Manifest, folds: int, reporter: Reporter) -> None:
    pool = pool_of(manifest)
    aside = len(manifest.samples) - len(pool)
    test = f"; the test split ({aside:,} images) is set aside: no fold uses it" if aside else ""
    what = "all" if "test" in manifest.made_splits else "training and validation images pooled:"
    reporter.message(f"{folds} folds of {what} {len(pool):,} images, stratified{test}")


def _collect(
    config: FinetuneConfig, manifest: Manifest, folder: Path, done: Sequence[Trained], seconds: dict[str, float]
) -> CrossValidation:
    held_out = [(trained.manifest.split("test"), trained.logits["test"]) for trained in done]
    table = gather(manifest.root, manifest.classes, held_out)
    folds = tuple(Fold(fold=number, **run_fields(trained)) for number, trained in enumerate(done, start=1))
    mean, standard_error = _over_folds([fold.test for fold in folds if fold.test is not None])
    names = {"predictions": PREDICTIONS, "suspects": SUSPECTS, "summary": FOLDS}
    return CrossValidation(
        folder=str(folder),
        model=config.model,
        classes=manifest.classes,
        images=len(table.paths),
        kind=OUT_OF_FOLD,
        folds=folds,
        out_of_fold=metrics.summary(table.probabilities, table.labels),
        mean=mean,
        standard_error=standard_error,
        suspects=suspects_of(table),
        predictions=table,
        files={name: str(folder / file) for name, file in names.items()},
        seconds=seconds,
    )


def _over_folds(scores: Sequence[Mapping[str, float]]) -> tuple[dict[str, float], dict[str, float]]:
    """Mean and standard error of each score; no standard error from one fold alone."""
    columns = {name: np.array([row[name] for row in scores]) for name in scores[0]}
    mean = {name: float(values.mean()) for name, values in columns.items()}
    if len(scores) < 2:
        return mean, {}
    return mean, {name: float(values.std(ddof=1) / np.sqrt(len(values))) for name, values in columns.items()}


def _write(config: FinetuneConfig, folder: Path, result: CrossValidation) -> None:
    """Write the files, the summary last: if it exists, the other files are complete."""
    write_predictions(folder / PREDICTIONS, result.predictions)
    write_suspects(folder / SUSPECTS, result.suspects)
    write_json(folder / FOLDS, {**result.to_dict(), "config": to_json(config)})

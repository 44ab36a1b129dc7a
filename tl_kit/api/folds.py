"""``cross_validate``: one run a fold, so that every image is scored by a model that has not seen it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator

from tl_kit import metrics
from tl_kit.api.finetuning import Trained, finetune_on
from tl_kit.api.left_out import scan_images
from tl_kit.api.options import check
from tl_kit.api.out_of_fold import OutOfFold, Suspect, gather, suspects_of, write_predictions, write_suspects
from tl_kit.api.preparation import shared_folder
from tl_kit.config import FinetuneConfig, FoldsConfig
from tl_kit.data.folds import check_folds, fold_manifests, pool_of
from tl_kit.data.manifest import SPLITS, Exclusion, Manifest, check_trainable
from tl_kit.errors import TlKitError
from tl_kit.reporting import SILENT, Reporter
from tl_kit.runtime import detect
from tl_kit.training.checkpoint import FOLDS, is_checkpoint
from tl_kit.training.files import write_json

__all__ = ["CrossValidation", "Fold", "cross_validate"]

PREDICTIONS, SUSPECTS = "out_of_fold.csv", "suspects.csv"


@dataclass(frozen=True, kw_only=True)
class Fold:
    """One run: ``test`` are its scores on the images of the fold, ``images`` the number of them in each split.

    ``test`` is None where none of the fold's images could be decoded.
    """

    fold: int
    checkpoint: str
    policy: str
    epochs: int
    images: dict[str, int]
    val: dict[str, float] | None
    test: dict[str, float] | None
    seconds: float


@dataclass(frozen=True, kw_only=True)
class CrossValidation:
    """What all folds say together.

    ``out_of_fold`` are scores over all images at once; ``mean`` and ``standard_error`` those over the folds' own scores
    (the sample's standard deviation over √folds). Folds share training images, so that the standard error is too small
    rather than too large (Bengio & Grandvalet 2004).
    ``predictions`` holds the probabilities themselves; of the JSON form only the file is part.
    """

    folder: str
    model: str
    classes: tuple[str, ...]
    images: int
    folds: tuple[Fold, ...]
    out_of_fold: dict[str, float]
    mean: dict[str, float]
    standard_error: dict[str, float]
    suspects: tuple[Suspect, ...]
    predictions: OutOfFold
    files: dict[str, str]
    seconds: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON; ``suspects`` is their number, the file lists them."""
        kept = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "predictions"}
        folds = [asdict(fold) for fold in self.folds]
        return {**kept, "classes": list(self.classes), "folds": folds, "suspects": len(self.suspects)}


def cross_validate(
    config: FinetuneConfig, *, folds: int = FoldsConfig.folds, reporter: Reporter = SILENT
) -> CrossValidation:
    """Fine-tune once a fold, on the images outside of it; ``out/fold-1`` ... are checkpoints like any other.

    Training and validation images are pooled and cut into stratified folds that separate neither groups nor copies
    (:func:`fold_manifests`). A fold is its run's test split; validation images are taken from the others, so that no
    image has a part in choosing what it is scored by. A test split that the data came with is set aside; where splits
    would have been made, all images take part. ``out`` then gets ``out_of_fold.csv`` (every image's probabilities, from
    the model that has not seen it), ``suspects.csv`` (labels that are probably wrong, by :func:`suspect_labels`), and
    ``folds.json``.

    Raises what :func:`finetune` raises, and ConfigError for a number of folds that the images do not allow. Ctrl-C and
    errors leave the folds that were finished; without any, no folder is left behind.
    """
    check(config)
    check_folds(folds)
    started = time.perf_counter()
    accelerator = Accelerator(cpu=detect(config.runtime).device.type == "cpu", mixed_precision="no")
    if not accelerator.is_main_process:
        reporter = SILENT
    manifest = scan_images(config.data, config.split, decode=config.decode, strict=config.strict, reporter=reporter)
    scanned = time.perf_counter() - started
    parts = fold_manifests(manifest, folds, config.split)
    _announce(manifest, folds, reporter)
    folder = shared_folder(config, accelerator)
    done: list[Trained] = []
    with _kept(folder, done, folds, accelerator, reporter):
        _train(config, parts, folder, done, reporter)
        seconds = {"total": time.perf_counter() - started, "scan": scanned}
        result = _collect(config, manifest, folder, done, seconds)
        if accelerator.is_main_process:
            _write(config, folder, result)
        return result


@contextmanager
def _kept(
    folder: Path, done: Sequence[Trained], folds: int, accelerator: Accelerator, reporter: Reporter
) -> Iterator[None]:
    """Whatever ends the work early, what is left is said, and no empty folder is."""
    try:
        yield
    except KeyboardInterrupt:
        left = _left_over(folder, len(done), folds)
        raise KeyboardInterrupt(*([left] if left else [])) from None
    except TlKitError:
        if left := _left_over(folder, len(done), folds):
            reporter.message(left)
        raise
    finally:
        if accelerator.is_main_process and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _announce(manifest: Manifest, folds: int, reporter: Reporter) -> None:
    pool = pool_of(manifest)
    aside = len(manifest.samples) - len(pool)
    test = f"; the test split ({aside:,} images) is set aside: no fold uses it" if aside else ""
    what = "all" if "test" in manifest.made_splits else "training and validation images pooled:"
    reporter.message(f"{folds} folds of {what} {len(pool):,} images, stratified{test}")


def _train(
    config: FinetuneConfig, parts: Sequence[Manifest], folder: Path, done: list[Trained], reporter: Reporter
) -> None:
    """One run a fold; ``done`` takes what is finished. What one fold could not decode, the others need not try."""
    told = _Once(reporter)
    broken: tuple[Exclusion, ...] = ()
    for number, part in enumerate(parts, start=1):
        manifest = part.without(broken)
        check_trainable(manifest)
        reporter.message(f"fold {number} of {len(parts)}: {_counts(manifest)}")
        trained = finetune_on(manifest, replace(config, out=folder / f"fold-{number}"), reporter=told)
        if trained.result.status != "finished":
            raise KeyboardInterrupt
        broken += trained.manifest.exclusions[len(manifest.exclusions) :]
        done.append(trained)


def _counts(manifest: Manifest) -> str:
    return ", ".join(f"{len(manifest.split(split)):,} {split}" for split in SPLITS)


def _left_over(folder: Path, finished: int, folds: int) -> str:
    """What an early end leaves behind; empty if it is nothing."""
    stopped = folder / f"fold-{finished + 1}"
    kept = is_checkpoint(stopped)
    if not finished and not kept:
        return ""
    unfinished = f"; the best checkpoint so far of the next one is in {stopped}" if kept else ""
    return f"{finished} of {folds} folds are finished, in {folder}{unfinished}"


def _collect(
    config: FinetuneConfig, manifest: Manifest, folder: Path, done: Sequence[Trained], seconds: dict[str, float]
) -> CrossValidation:
    held_out = [(trained.manifest.split("test"), trained.logits["test"]) for trained in done]
    table = gather(manifest.root, manifest.classes, held_out)
    folds = tuple(_fold(number, trained) for number, trained in enumerate(done, start=1))
    mean, standard_error = _over_folds([fold.test for fold in folds if fold.test is not None])
    names = {"predictions": PREDICTIONS, "suspects": SUSPECTS, "summary": FOLDS}
    return CrossValidation(
        folder=str(folder),
        model=config.model,
        classes=manifest.classes,
        images=len(table.paths),
        folds=folds,
        out_of_fold=metrics.summary(table.probabilities, table.labels),
        mean=mean,
        standard_error=standard_error,
        suspects=suspects_of(table),
        predictions=table,
        files={name: str(folder / file) for name, file in names.items()},
        seconds=seconds,
    )


def _fold(number: int, trained: Trained) -> Fold:
    result = trained.result
    return Fold(
        fold=number,
        checkpoint=result.checkpoint,
        policy=result.policy,
        epochs=result.epochs,
        images={split: len(trained.manifest.split(split)) for split in SPLITS},
        val=result.val,
        test=result.test,
        seconds=result.seconds["total"],
    )


def _over_folds(scores: Sequence[Mapping[str, float]]) -> tuple[dict[str, float], dict[str, float]]:
    """Mean and standard error of each score; no standard error from one fold alone."""
    columns = {name: np.array([row[name] for row in scores]) for name in scores[0]}
    mean = {name: float(values.mean()) for name, values in columns.items()}
    if len(scores) < 2:
        return mean, {}
    return mean, {name: float(values.std(ddof=1) / np.sqrt(len(values))) for name, values in columns.items()}


def _write(config: FinetuneConfig, folder: Path, result: CrossValidation) -> None:
    """The summary last: where it is, the other files are whole."""
    write_predictions(folder / PREDICTIONS, result.predictions)
    write_suspects(folder / SUSPECTS, result.suspects)
    plain = json.loads(json.dumps(asdict(config), default=str))
    write_json(folder / FOLDS, {**result.to_dict(), "config": plain})


class _Once:
    """Passes on progress, and each message once: most of what a fold has to say, the one before has said."""

    def __init__(self, reporter: Reporter) -> None:
        self.start, self.advance, self.epoch = reporter.start, reporter.advance, reporter.epoch
        self._reporter = reporter
        self._said: set[str] = set()

    def message(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._reporter.message(text)

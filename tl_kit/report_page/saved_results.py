"""Saved results: what the JSON files of a run, an ensemble, folds or a fit say, and where its images are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from tl_kit.errors import CheckpointError
from tl_kit.report_page.figures import Record
from tl_kit.score_kinds import KINDS, OUT_OF_FOLD
from tl_kit.storage.checkpoint import FOLDS, MEMBERS, META, is_checkpoint, read_meta
from tl_kit.storage.checkpoint_schema import check_classes
from tl_kit.storage.ensemble_folder import MANIFEST, is_ensemble, read_ensemble
from tl_kit.storage.fit_folder import FIT, best_of, is_fit, read_fit
from tl_kit.untrusted import read_json

__all__ = ["Saved", "Split", "open_result"]

Kind: TypeAlias = Literal["run", "ensemble", "folds", "fit"]
_SPLITS = ("test", "val")


@dataclass(frozen=True)
class Split:
    """Scores on one split: their kind, the number of images (None: not recorded) and the path of the scores."""

    name: str
    kind: str
    images: int | None
    path: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A result in ``folder``: ``record`` describes it; ``runs`` are the records of the runs that it is made of.

    ``receipt``: the path in the record to an ensemble's receipt, None without one. ``model``: the checkpoint or
    ensemble that predicts; None for folds. ``journal``: the rows of a single run's epochs.
    """

    folder: Path
    kind: Kind
    record: Record
    runs: tuple[Record, ...]
    receipt: tuple[str, ...] | None
    splits: tuple[Split, ...]
    model: Path | None
    journal: tuple[dict[str, Any], ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, in the order of the model's outputs."""
        return tuple(self.record.listed("classes") or (self.runs[0].listed("classes") if self.runs else ()))

    @property
    def chosen(self) -> list[str]:
        """Everything that validation images chose."""
        paths = [("chosen_by_val",), *([] if self.receipt is None else [(*self.receipt, "chosen_by_val")])]
        return next(filter(None, (self.record.listed(*path) for path in paths)), [])

    @property
    def kinds(self) -> dict[str, str]:
        """The kind of each split's scores."""
        return {split.name: split.kind for split in self.splits}

    @property
    def data(self) -> Path | None:
        """The folder of the images that scored the ensemble, else of the first run's; None if neither is recorded."""
        for record in (self.record, *self.runs):
            for path in (("scored_on",), ("data", "root"), ("config", "data")):
                if record.text(*path):
                    return Path(record.text(*path))
        return None


def open_result(folder: Path) -> Saved:
    """Read the records of a result. Raises CheckpointError for a folder without any, or with a damaged one."""
    if (folder / FOLDS).is_file():
        return _folds(folder)
    if is_fit(folder):
        return _fit(folder)
    if is_ensemble(folder):
        return _ensemble(folder)
    if (folder / MEMBERS).is_file():
        raise CheckpointError(
            f"{folder}: holds several runs; combine them (tlkit ensemble {folder}/member-*) or name one"
        )
    if not is_checkpoint(folder):
        what = "no such folder" if not folder.exists() else "holds no result"
        raise CheckpointError(f"{folder}: {what}; give a folder that finetune, ensemble or fit wrote")
    return _run(folder)


def _run(folder: Path) -> Saved:
    record = _of_run(folder, META)
    splits = tuple(_splits(record, (), ("kinds",), ("data", "images")))
    journal = tuple(_journal(folder / "metrics.jsonl"))
    return Saved(
        folder=folder,
        kind="run",
        record=record,
        runs=(record,),
        receipt=None,
        splits=splits,
        model=folder,
        journal=journal,
    )


def _ensemble(folder: Path) -> Saved:
    found = read_ensemble(folder)
    record = Record(MANIFEST, found.content, str(folder / MANIFEST))
    for place, member in enumerate(found.members):
        if not is_checkpoint(member):
            raise record.broken("the folder of a member inside the ensemble's", "members", place)
    runs = tuple(_of_run(member, f"{member.relative_to(folder).as_posix()}/{META}") for member in found.members)
    splits = tuple(_splits(record, ("receipt", "ensemble"), ("receipt", "kinds"), ("receipt", "images")))
    return Saved(
        folder=folder,
        kind="ensemble",
        record=record,
        runs=runs,
        receipt=_receipt(record),
        splits=splits,
        model=folder,
    )


def _fit(folder: Path) -> Saved:
    best = best_of(folder)
    inner = _ensemble(best) if is_ensemble(best) else _run(best)
    record = Record(FIT, read_fit(folder), str(folder / FIT))
    return replace(
        inner,
        folder=folder,
        kind="fit",
        record=record,
        receipt=_receipt(record),
        splits=tuple(_splits(record, (), ("kinds",), ("images",))),
    )


def _folds(folder: Path) -> Saved:
    record = Record(FOLDS, read_json(folder / FOLDS, error=CheckpointError), str(folder / FOLDS))
    check_classes(record.content.get("classes"), folder / FOLDS)
    runs = tuple(
        _of_run(path, f"{path.name}/{META}")
        for path in sorted(folder.glob("fold-*"), key=lambda path: (len(path.name), path.name))
        if is_checkpoint(path)
    )
    split = Split(OUT_OF_FOLD, OUT_OF_FOLD, record.whole("images"), ("out_of_fold",))
    return Saved(folder=folder, kind="folds", record=record, runs=runs, receipt=None, splits=(split,), model=None)


def _of_run(folder: Path, name: str) -> Record:
    return Record(name, read_meta(folder), str(folder / META))


def _receipt(record: Record) -> tuple[str, ...] | None:
    return ("receipt",) if record.mapping("receipt") else None


def _splits(
    record: Record, scores: tuple[str, ...], kinds: tuple[str, ...], images: tuple[str, ...]
) -> Iterator[Split]:
    for name in _SPLITS:
        if record.mapping(*scores, name):
            kind = record.text(*kinds, name) or "unknown"
            if kind not in KINDS:
                raise record.broken(f"one of {', '.join(KINDS)}", *kinds, name)
            yield Split(name, kind, record.whole(*images, name), (*scores, name))


def _journal(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a journal of epochs; none without one, and none of a broken one."""
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError, RecursionError):
        return
    yield from (row for row in rows if isinstance(row, dict))

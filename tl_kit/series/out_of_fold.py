"""Out-of-fold predictions, each from the one model that has not seen the image; and suspect labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tl_kit import metrics
from tl_kit.data.forms.local_copies import inner_name
from tl_kit.data.manifest import Sample, labels_of
from tl_kit.diagnosis.label_errors import suspect_labels
from tl_kit.storage.atomic import write_csv

__all__ = ["OutOfFold", "Suspect", "gather", "suspects_of", "write_predictions", "write_suspects"]


@dataclass(frozen=True, kw_only=True)
class OutOfFold:
    """Rows in order of path: ``paths`` (n), ``labels`` (n,), ``folds`` (n,) from 1, ``probabilities`` (n, k).

    The columns of ``probabilities`` are in the order of ``classes``, which ``labels`` index.
    """

    classes: tuple[str, ...]
    paths: tuple[str, ...]
    labels: NDArray[np.int64]
    folds: NDArray[np.int64]
    probabilities: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Suspect:
    """An image whose label is probably wrong: its label, the suggested class, and the probability of each.

    ``margin`` is the label's probability minus the highest other probability: the lower, the more suspect.
    """

    path: str
    label: str
    suggested: str
    p_label: float
    p_suggested: float
    margin: float


def gather(root: Path, classes: Sequence[str], held_out: Iterable[tuple[tuple[Sample, ...], Tensor]]) -> OutOfFold:
    """One table of the folds' held-out samples and their logits (n, k), in the order of the folds.

    Paths are relative to ``root``, or to its folder if it is a file, or as in the archive or table that was copied;
    other paths are not changed.
    """
    base = root if root.is_dir() else root.parent
    paths: list[str] = []
    labels, folds, probabilities = [], [], []
    for number, (samples, logits) in enumerate(held_out, start=1):
        if not samples:  # none of the fold's images could be decoded
            continue
        paths += [_relative(sample.path, base) for sample in samples]
        labels.append(labels_of(samples))
        folds.append(np.full(len(samples), number))
        probabilities.append(metrics.softmax(logits.numpy().astype(np.float64)))
    order = np.array(sorted(range(len(paths)), key=lambda index: paths[index]))
    return OutOfFold(
        classes=tuple(classes),
        paths=tuple(paths[index] for index in order),
        labels=np.concatenate(labels)[order],
        folds=np.concatenate(folds)[order],
        probabilities=np.concatenate(probabilities)[order],
    )


def _relative(path: Path, base: Path) -> str:
    if (name := inner_name(path)) is not None:
        return str(name)
    return str(path.relative_to(base) if path.is_relative_to(base) else path)


def suspects_of(table: OutOfFold) -> tuple[Suspect, ...]:
    """The labels that confident learning finds suspect (:func:`suspect_labels`), the most suspect first."""
    found = suspect_labels(table.probabilities, table.labels)
    return tuple(
        Suspect(
            path=table.paths[index],
            label=table.classes[table.labels[index]],
            suggested=table.classes[found.confident[index]],
            p_label=float(table.probabilities[index, table.labels[index]]),
            p_suggested=float(table.probabilities[index, found.confident[index]]),
            margin=float(found.margin[index]),
        )
        for index in found.ranking()
    )


def write_predictions(path: Path, table: OutOfFold) -> None:
    """Write ``path,label,predicted,fold`` and a column ``p_CLASS`` for each class; one row per image."""
    header = ["path", "label", "predicted", "fold", *(f"p_{name}" for name in table.classes)]
    columns = zip(table.paths, table.labels, table.folds, table.probabilities, strict=True)
    rows = (
        [name, table.classes[label], table.classes[int(values.argmax())], fold, *values.tolist()]
        for name, label, fold, values in columns
    )
    write_csv(path, header, rows)


def write_suspects(path: Path, suspects: Sequence[Suspect]) -> None:
    """Write one row per suspect, the most suspect first."""
    header = list(Suspect.__dataclass_fields__)
    write_csv(path, header, ([getattr(suspect, name) for name in header] for suspect in suspects))

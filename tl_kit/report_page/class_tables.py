"""Tables of predictions: classes, confused pairs, reliability, and accuracy against the share answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tl_kit import metrics

__all__ = [
    "Bin",
    "ClassRow",
    "Pair",
    "answered",
    "class_rows",
    "confused_pairs",
    "confusion_of",
    "most_confused",
    "reliability",
    "weak_classes",
]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """One class: its images (``support``), the images predicted as it, and both shares with 95 % intervals.

    An interval is None where there is no image to count. ``taken``: how many of its images are taken for the class
    ``taken_for``, the most frequent of the others; empty and 0 if all are found.
    """

    name: str
    support: int
    predicted: int
    recall: float
    recall_interval: tuple[float, float] | None
    precision: float
    precision_interval: tuple[float, float] | None
    f1: float
    taken_for: str = ""
    taken: int = 0


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Images of class ``label`` that are predicted as ``predicted``, the most confident first, by index."""

    label: int
    predicted: int
    images: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Images whose confidence lies in one interval: how many, their mean confidence, their accuracy, its interval."""

    images: int
    confidence: float
    accuracy: float
    interval: tuple[float, float]


def class_rows(
    probabilities: FloatArray, labels: IntArray, names: Sequence[str], places: Sequence[int] | None = None
) -> list[ClassRow]:
    """A row for each class: the scores of :func:`tl_kit.metrics.per_class`, and their intervals (Wilson 1927).

    ``places``: the classes to make rows of, None for all.
    """
    predicted = probabilities.argmax(axis=1)
    named = np.bincount(predicted, minlength=len(names))
    scores = metrics.per_class(probabilities, labels, names)
    rows = []
    for place in range(len(names)) if places is None else places:
        row, name = scores[names[place]], names[place]
        others = np.bincount(predicted[(labels == place) & (predicted != place)], minlength=len(names))
        taken = int(others.max())
        rows.append(
            ClassRow(
                name=name,
                support=int(row["support"]),
                predicted=int(named[place]),
                recall=row["recall"],
                recall_interval=_interval(row["recall"], int(row["support"])),
                precision=row["precision"],
                precision_interval=_interval(row["precision"], int(named[place])),
                f1=row["f1"],
                taken_for=names[int(others.argmax())] if taken else "",
                taken=taken,
            )
        )
    return rows


def _interval(share: float, images: int) -> tuple[float, float] | None:
    return metrics.wilson(share, images) if images else None


def confused_pairs(probabilities: FloatArray, labels: IntArray) -> list[Pair]:
    """Pairs of label and other predicted class, those with most images first."""
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    found: dict[tuple[int, int], list[int]] = {}
    for index in np.argsort(-confidence, kind="stable"):
        if predicted[index] != labels[index]:
            found.setdefault((int(labels[index]), int(predicted[index])), []).append(int(index))
    pairs = [Pair(label=key[0], predicted=key[1], images=tuple(images)) for key, images in found.items()]
    return sorted(pairs, key=lambda pair: (-len(pair.images), pair.label, pair.predicted))


def most_confused(labels: IntArray, predicted: IntArray, *, classes: int, most: int) -> list[int]:
    """At most ``most`` of ``classes``, those of most wrong images as label or as prediction, in their own order."""
    wrong = labels != predicted
    errors = np.bincount(labels[wrong], minlength=classes) + np.bincount(predicted[wrong], minlength=classes)
    return sorted(int(place) for place in np.argsort(-errors, kind="stable")[:most])


def confusion_of(labels: IntArray, predicted: IntArray, places: Sequence[int]) -> list[list[int]]:
    """The part of the confusion matrix that has these classes alone, as rows and columns, in their order."""
    from sklearn.metrics import confusion_matrix

    within = np.isin(labels, places) & np.isin(predicted, places)
    if not within.any():
        return [[0] * len(places) for _ in places]
    table: list[list[int]] = confusion_matrix(labels[within], predicted[within], labels=list(places)).tolist()
    return table


def weak_classes(labels: IntArray, predicted: IntArray, *, classes: int, rate: float) -> list[int]:
    """Classes whose recall lies below the accuracy of all images beyond chance, those that cost most images first.

    Each is tested by the exact binomial distribution; of the classes that are named, a share of at most ``rate`` is
    named by chance (Benjamini & Hochberg 1995). A class costs the images that it would bring with the recall of all.
    """
    from scipy.stats import binom, false_discovery_control

    right = labels == predicted
    support = np.bincount(labels, minlength=classes)
    hits, accuracy = np.bincount(labels[right], minlength=classes), float(right.mean())
    there = np.flatnonzero(support)
    chance = false_discovery_control(np.clip(binom.cdf(hits[there], support[there], accuracy), 0.0, 1.0))
    found = there[(chance <= rate) & (hits[there] < accuracy * support[there])]
    cost = accuracy * support[found] - hits[found]
    return [int(place) for place in found[np.argsort(-cost, kind="stable")]]


def reliability(probabilities: FloatArray, labels: IntArray, *, bins: int) -> list[Bin]:
    """Accuracy against confidence in ``bins`` intervals of equal width, as :func:`tl_kit.metrics.ece` has them."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    edges = np.arange(bins + 1) / bins
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    found = []
    for number in range(bins):
        inside = place == number
        images = int(inside.sum())
        if images:
            accuracy = float(right[inside].mean())
            interval = metrics.wilson(accuracy, images)
            mean = float(confidence[inside].mean())
            found.append(Bin(images=images, confidence=mean, accuracy=accuracy, interval=interval))
    return found


def answered(probabilities: FloatArray, labels: IntArray, *, points: int) -> list[tuple[float, float, float]]:
    """Share answered, accuracy on it, and the lowest confidence in it, if the most confident images are answered first.

    Images of equal confidence are answered together (El-Yaniv & Wiener 2010). At most ``points`` rows, the whole last.
    """
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    order = np.argsort(-confidence, kind="stable")
    sure = confidence[order]
    ends = np.flatnonzero(np.append(sure[1:] != sure[:-1], True))
    accuracy = np.cumsum(right[order])[ends] / (ends + 1)
    kept = np.unique(np.linspace(0, len(ends) - 1, min(points, len(ends))).round().astype(int))
    return [(float((ends[k] + 1) / len(labels)), float(accuracy[k]), float(sure[ends[k]])) for k in kept]

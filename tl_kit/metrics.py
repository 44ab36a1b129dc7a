"""Metrics of class probabilities: accuracies, macro-F1, negative log-likelihood, Brier score and calibration error.

Every function of probabilities takes them in shape (n images, k classes) with k >= 2, with rows that sum to 1, and
integer labels of shape (n,) in 0..k-1; it computes in float64. Anything else is a ``ValueError`` that says what is
wrong. The predicted class is the one of highest probability, the first of them where several are equal.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "accuracy",
    "balanced_accuracy",
    "bounded_nll",
    "brier",
    "confusion",
    "correct",
    "ece",
    "image_losses",
    "macro_f1",
    "nll",
    "per_class",
    "softmax",
    "summary",
    "wilson",
]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

# Wide enough for float32 rows of thousands of classes, narrow enough to refuse logits and scores.
_ROW_SUM_TOLERANCE = 1e-4


@contextmanager
def _many_classes() -> Iterator[None]:
    """As a decorator: scikit-learn 1.6 and 1.7 warn of a regression where classes are many and images few."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The number of unique classes is greater than 50%")
        yield


def softmax(logits: ArrayLike) -> FloatArray:
    """Probabilities from finite logits, over the last axis, in float64; the shape stays.

    Raises:
        ValueError: a logit is not finite, or there are no classes.
    """
    values = np.asarray(logits, dtype=np.float64)
    if values.ndim == 0 or values.shape[-1] == 0:
        raise ValueError(f"logits must have shape (..., classes), got {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("logits must be finite")
    with np.errstate(over="ignore"):  # the distance between two huge logits may be -inf, whose exponential is 0
        exponentials = np.exp(values - values.max(axis=-1, keepdims=True))
    result: FloatArray = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return result


def correct(probabilities: ArrayLike, labels: ArrayLike) -> NDArray[np.bool_]:
    """Per image, whether the predicted class is the label: shape (n,)."""
    values, truth = _validated(probabilities, labels)
    result: NDArray[np.bool_] = values.argmax(axis=1) == truth
    return result


def accuracy(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Share of images whose predicted class is the label, in 0..1."""
    return _accuracy(*_validated(probabilities, labels))


def balanced_accuracy(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Mean recall of the classes that occur among the labels, in 0..1 (Brodersen et al. 2010).

    Each of these classes counts the same, however few images it has; where all have as many, it is the accuracy.
    """
    return float(_recall_and_f1(*_validated(probabilities, labels))[0].mean())


def macro_f1(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Unweighted mean of the classes' F1, in 0..1.

    As in scikit-learn, the mean is over the classes that occur among the labels or the predictions: a class that
    nobody has and nobody predicts does not lower the score. A class without a hit counts as 0.
    """
    return float(_recall_and_f1(*_validated(probabilities, labels))[1].mean())


def nll(probabilities: ArrayLike, labels: ArrayLike, *, weights: ArrayLike | None = None) -> float:
    """Mean negative natural logarithm of the label's probability (log loss, cross-entropy), in nats.

    Rows are scaled to sum to exactly 1, and probabilities are clipped to [eps, 1 - eps] with float64's eps of 2.2e-16:
    the loss of one image lies between 2.2e-16 and 36.04, and is never infinite. ``weights`` (n,), positive, make it a
    weighted mean.
    """
    return _nll(*_validated(probabilities, labels), weights=weights)


def bounded_nll(probabilities: ArrayLike, labels: ArrayLike, *, weights: ArrayLike | None = None) -> float:
    """:func:`nll` of (n p + 1/k) / (n + 1) in place of p: what to choose by, where n images are few.

    It is as if one image more had been seen, of which nothing is known. The loss of one image is at most
    log(k (n + 1)), log(n + 1) above a guess, so that no single image decides.
    """
    values, truth = _validated(probabilities, labels)
    images, classes = values.shape
    smoothed = (images * values / values.sum(axis=1, keepdims=True) + 1 / classes) / (images + 1)
    return _nll(smoothed, truth, weights=weights)


def brier(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Brier score over all classes, in 0..2 (Brier 1950): Σ_c (p_c - [c is the label])², mean over images.

    With two classes this is twice the binary form that looks at one class only.
    """
    return _brier(*_validated(probabilities, labels))


def ece(probabilities: ArrayLike, labels: ArrayLike, *, bins: int = 15) -> float:
    """Expected calibration error of the predicted class, in 0..1 (Naeini et al. 2015; Guo et al. 2017, equation 3).

    ECE = Σ_b |B_b| / n · |accuracy(B_b) - confidence(B_b)|, over ``bins`` intervals ((b - 1) / bins, b / bins] of the
    highest probability. Empty bins count nothing.
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    return _ece(*_validated(probabilities, labels), bins=bins)


def summary(probabilities: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """``accuracy``, ``balanced_accuracy``, ``macro_f1``, ``nll``, ``brier`` and ``ece`` (15 bins).

    Each is the function of that name.
    """
    values, truth = _validated(probabilities, labels)
    recall, f1 = _recall_and_f1(values, truth)
    return {
        "accuracy": _accuracy(values, truth),
        "balanced_accuracy": float(recall.mean()),
        "macro_f1": float(f1.mean()),
        "nll": _nll(values, truth),
        "brier": _brier(values, truth),
        "ece": _ece(values, truth, bins=15),
    }


def wilson(share: float, images: int) -> tuple[float, float]:
    """The 95 % score interval of a share of ``images`` (Wilson 1927), which stays within 0..1."""
    from scipy.stats import binomtest

    interval = binomtest(round(share * images), images).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


@_many_classes()
def per_class(
    probabilities: ArrayLike, labels: ArrayLike, class_names: Sequence[str]
) -> dict[str, dict[str, float | int]]:
    """``precision``, ``recall``, ``f1`` (0..1) and ``support`` (images with that label) of each class, by name.

    A ratio whose denominator is 0 is 0. ``class_names`` are in the order of the columns.

    Raises:
        ValueError: besides the module's own, names that are repeated or not one a column.
    """
    from sklearn.metrics import precision_recall_fscore_support

    values, truth = _validated(probabilities, labels)
    classes = values.shape[1]
    if len(class_names) != classes or len(set(class_names)) != classes:
        raise ValueError(f"class_names must be {classes} different names, one a column, got {len(class_names)}")
    columns = precision_recall_fscore_support(truth, values.argmax(axis=1), labels=range(classes), zero_division=0)
    return {
        name: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(s)}
        for name, p, r, f, s in zip(class_names, *columns, strict=True)
    }


@_many_classes()
def confusion(probabilities: ArrayLike, labels: ArrayLike) -> list[list[int]]:
    """Counts of images, k rows of k: the row is the label, the column the predicted class."""
    from sklearn.metrics import confusion_matrix

    values, truth = _validated(probabilities, labels)
    table = confusion_matrix(truth, values.argmax(axis=1), labels=range(values.shape[1]))
    return [[int(count) for count in row] for row in table]


def _validated(probabilities: ArrayLike, labels: ArrayLike) -> tuple[FloatArray, IntArray]:
    values, truth = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    if values.ndim != 2 or truth.ndim != 1 or len(values) != len(truth):
        raise ValueError(f"want probabilities (n, k) and labels (n,), got {values.shape} and {truth.shape}")
    images, classes = values.shape
    if images == 0:
        raise ValueError("there are no images to score")
    if classes < 2:
        raise ValueError(f"want probabilities of at least two classes, got {classes}")
    if truth.dtype.kind not in "iu":
        raise ValueError(f"labels must be integers, got {truth.dtype}")
    if truth.min() < 0 or truth.max() >= classes:
        raise ValueError(f"labels must lie in 0..{classes - 1}, got {truth.min()}..{truth.max()}")
    if not np.isfinite(values).all():
        raise ValueError("probabilities must be finite")
    if values.min() < 0:
        raise ValueError(f"probabilities must not be negative, got {values.min():.3g} (are these logits?)")
    sums = values.sum(axis=1)
    worst = int(np.abs(sums - 1).argmax())
    if abs(sums[worst] - 1) > _ROW_SUM_TOLERANCE:
        raise ValueError(f"probabilities must sum to 1 in each row, row {worst} sums to {sums[worst]:.6g}")
    return values, truth.astype(np.int64)


@_many_classes()
def _accuracy(values: FloatArray, truth: IntArray) -> float:
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(truth, values.argmax(axis=1)))


@_many_classes()
def _recall_and_f1(values: FloatArray, truth: IntArray) -> tuple[FloatArray, FloatArray]:
    """Recall of each class that occurs among the labels, and F1 of each that occurs there or among the predictions."""
    from sklearn.metrics import precision_recall_fscore_support

    _, recall, f1, images = precision_recall_fscore_support(truth, values.argmax(axis=1), zero_division=0)
    return recall[images > 0], f1


def _nll(values: FloatArray, truth: IntArray, *, weights: ArrayLike | None = None) -> float:
    shares = None if weights is None else np.asarray(weights, dtype=np.float64)
    return float(np.average(image_losses(values, truth), weights=shares))


def _brier(values: FloatArray, truth: IntArray) -> float:
    errors = values.copy()
    errors[np.arange(len(truth)), truth] -= 1
    return float(np.square(errors).sum(axis=1).mean())


def _ece(values: FloatArray, truth: IntArray, *, bins: int) -> float:
    confidence = values.max(axis=1)
    edges = np.arange(bins + 1) / bins
    # Rounding may leave the highest probability a little above 1: it belongs to the last bin.
    bin_of = np.minimum(np.searchsorted(edges, confidence, side="left") - 1, bins - 1)
    # |B|/n · |mean(hit) - mean(confidence)| is |Σ (hit - confidence)| / n: no bin is divided by its size.
    gaps = np.bincount(bin_of, weights=(values.argmax(axis=1) == truth) - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(truth))


_EPS = np.finfo(np.float64).eps


def image_losses(probabilities: FloatArray, labels: IntArray) -> FloatArray:
    """The NLL of each image (n,), clipped as in :func:`tl_kit.metrics.nll`, whose value is their mean."""
    at_label = probabilities[np.arange(len(labels)), labels] / probabilities.sum(axis=1)
    result: FloatArray = -np.log(np.clip(at_label, _EPS, 1 - _EPS))
    return result

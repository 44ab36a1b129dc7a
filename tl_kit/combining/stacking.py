"""Stacking: multinomial logistic regression on the members' log-probabilities (Wolpert 1992; scikit-learn's solver)."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tl_kit import metrics
from tl_kit.combining.canonical_order import stratified_folds
from tl_kit.config import RuleFitConfig
from tl_kit.errors import ConfigError

__all__ = ["fit_stack", "stacked"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_EPS = np.finfo(np.float64).eps
_STEPS = 1000


def stacked(stack: FloatArray, *, coefficients: ArrayLike, intercepts: ArrayLike) -> FloatArray:
    """softmax_c(b_c + Σ_{j,l} a_cjl · log p_jl), (n, k), from a stack (m, n, k).

    Args:
        stack: the members' probabilities; logs are clipped at 2.2e-16.
        coefficients: a, (k, m, k): weight of member j's log-probability of class l for class c.
        intercepts: b, (k,).
    """
    logits = np.einsum("jil,cjl->ic", _logs(stack), np.asarray(coefficients)) + np.asarray(intercepts)
    return metrics.softmax(logits)


def fit_stack(
    stack: FloatArray, labels: IntArray, *, config: RuleFitConfig, seed: int
) -> tuple[FloatArray, FloatArray, float]:
    """Coefficients (k, m, k) and intercepts (k,) of :func:`stacked`, and the penalty's inverse strength C.

    C is the value of ``config.stack_c`` with the lowest cross-validated NLL (:func:`tl_kit.metrics.bounded_nll`, which
    no single image can dominate). Ties go to the strongest penalty.

    Raises:
        ConfigError: a class has fewer than two images, so that a fold would fit without it. (An out-of-fold score,
            which fits to a part of the images, needs three.)
    """
    members, _, classes = stack.shape
    if np.bincount(labels, minlength=classes).min() < 2:
        raise ConfigError("rule stack: needs three validation images of every class; choose another --rule")
    features = _logs(stack).transpose(1, 0, 2).reshape(len(labels), -1)
    strengths = sorted(config.stack_c)
    losses = _cross_validated(features, labels, strengths, folds=config.folds, seed=seed)
    chosen = strengths[int(np.argmin(losses))]
    weights, intercepts = _fit(features, labels, chosen, classes)
    return weights.reshape(classes, members, classes), intercepts, chosen


def _cross_validated(
    features: FloatArray, labels: IntArray, strengths: list[float], *, folds: int, seed: int
) -> list[float]:
    if len(strengths) == 1:
        return [0.0]
    classes = int(labels.max()) + 1
    numbers = stratified_folds(labels, folds, seed=seed)
    losses = []
    for strength in strengths:
        found = np.empty((len(labels), classes))
        for fold in np.unique(numbers):
            held_out = numbers == fold
            weights, intercepts = _fit(features[~held_out], labels[~held_out], strength, classes)
            found[held_out] = metrics.softmax(features[held_out] @ weights.T + intercepts)
        losses.append(metrics.bounded_nll(found, labels))
    return losses


def _fit(features: FloatArray, labels: IntArray, strength: float, classes: int) -> tuple[FloatArray, FloatArray]:
    """Weights (k, features) and intercepts (k,). Every class occurs among the labels."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    centre = features.mean(axis=0)  # the intercept is not penalised, so this changes nothing and speeds up the solver
    model = LogisticRegression(C=strength, max_iter=_STEPS, tol=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # accurate enough: it is scored on other images
        model.fit(features - centre, labels)
    weights, intercepts = np.asarray(model.coef_), np.asarray(model.intercept_)
    if classes == 2:  # one row: the log-odds of the second class
        weights, intercepts = np.vstack([0 * weights, weights]), np.concatenate([[0.0], intercepts])
    return weights, intercepts - weights @ centre


def _logs(stack: FloatArray) -> FloatArray:
    result: FloatArray = np.log(np.maximum(stack, _EPS))
    return result

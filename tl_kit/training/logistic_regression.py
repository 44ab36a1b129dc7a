"""The ``head`` policy in closed form: a penalised logistic regression on the trunk's cached features.

The problem is convex, so there is no learning rate and no epoch to choose; only the strength of the penalty, which
validation decides. Reference: cs231n, "Transfer learning": a linear classifier on CNN codes.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tl_kit import metrics
from tl_kit.config import HeadConfig
from tl_kit.errors import TrainingError
from tl_kit.optimization.feature_scaling import check_finite, choose_strength, fit_scaling

__all__ = ["HeadFit", "fit_head"]

Floats = NDArray[np.float64]

# Newton's method with the Hessian used through its products with vectors: written out it is (classes x features)^2.
_SOLVERS = {"lbfgs": "lbfgs", "newton": "newton-cg"}


@dataclass(frozen=True)
class HeadFit:
    """A linear head on raw features: weight (classes, features), bias (classes,), the chosen C, its validation NLL."""

    weight: Floats
    bias: Floats
    strength: float
    val_nll: float | None
    iterations: int
    solver: str


def fit_head(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    classes: int,
    *,
    val_features: NDArray[np.float32],
    val_labels: NDArray[np.int64],
    weights: Floats | None = None,
    val_weights: Floats | None = None,
    blocks: Sequence[int] | None = None,
    config: HeadConfig = HeadConfig(),
) -> HeadFit:
    """Fit for each strength, from the strongest penalty on (warm start), and keep the one that suits validation best.

    features (n, d), labels (n,) with at least two classes present; val_features (m, d), m may be 0: then the middle
    strength is taken. ``config.solver`` is lbfgs (a quasi-Newton method) or newton: the problem is convex, so both end
    in the same place. Features are scaled for the fit (:func:`fit_scaling`, which has
    ``blocks``); the result applies to the raw ones. The strength is that of the lowest
    :func:`tl_kit.metrics.bounded_nll`, which no single image decides.

    An image of weight w (``weights`` (n,), of mean 1 where C is to keep its meaning) counts as w images, in the scaling
    too; ``val_weights`` (m,) do the same to the validation NLL. None: all weigh 1.

    Raises NonFiniteError for features that are not finite, TrainingError for labels of one class.
    """
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    if len(np.unique(labels)) < 2:
        raise TrainingError("the images to fit a head to are all of one class: it needs two at least")
    weights = np.ones(len(features)) if weights is None else weights
    scaling = fit_scaling(features, weights=weights, blocks=blocks)
    check_finite(val_features)
    x = scaling(features)
    strengths = config.strengths if len(val_labels) else (config.strengths[len(config.strengths) // 2],)
    threads = 1 if x.size * classes < config.one_thread_below else None
    model = LogisticRegression(solver=_SOLVERS[config.solver], max_iter=config.max_iter, warm_start=True)
    fits: dict[float, HeadFit] = {}

    def loss(strength: float) -> float:
        model.set_params(C=strength)
        with warnings.catch_warnings(), threadpool_limits(threads):
            warnings.simplefilter("ignore")  # an unconverged fit is judged by validation like any other
            model.fit(x, labels, sample_weight=weights)
        weight, bias = scaling.on_raw(*_all_classes(model.coef_, model.intercept_, model.classes_, classes))
        nll, bounded = None, 0.0
        if len(val_labels):
            probabilities = metrics.softmax(val_features.astype(np.float64) @ weight.T + bias)
            nll = metrics.nll(probabilities, val_labels, weights=val_weights)
            bounded = metrics.bounded_nll(probabilities, val_labels, weights=val_weights)
        fits[strength] = HeadFit(weight, bias, strength, nll, int(np.max(model.n_iter_)), config.solver)
        return bounded

    return fits[choose_strength(strengths, loss)]


def _all_classes(coef: Floats, intercept: Floats, present: NDArray[np.int64], classes: int) -> tuple[Floats, Floats]:
    """scikit-learn gives one row for two classes, and none for absent ones: one row a class, softmax unchanged."""
    if len(present) == 2:
        coef, intercept = np.concatenate([-coef, coef]) / 2, np.concatenate([-intercept, intercept]) / 2
    weight, bias = np.zeros((classes, coef.shape[1])), np.full(classes, -30.0)
    weight[present], bias[present] = coef, intercept
    return weight, bias

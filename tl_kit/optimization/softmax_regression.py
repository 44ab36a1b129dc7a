"""Softmax regression with an L2 penalty: a convex fit in a basis in which few steps are enough.

The objective is (Σ_i w_i CE_i) / Σ_i w_i + |W|² / (2 s): scikit-learn's, divided by C Σ_i w_i, where s is C times the
images. The bias is not penalised. In the principal axes of the features the Hessian of the loss is about
(1/k) diag(e) / n, of the k classes and the eigenvalues e of X'X (Böhning 1992, "Multinomial logistic regression
algorithm", bounds it so), and coordinates divided by its root make all directions about as steep: ten to twenty steps
of L-BFGS do, where raw features take forty to a hundred.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["SOLVERS", "Floats", "Rotated", "Solution", "fit_softmax", "rotate"]

Floats: TypeAlias = NDArray[np.float64]
Rows: TypeAlias = NDArray[np.float32] | NDArray[np.float64]

SOLVERS = {"lbfgs": "L-BFGS-B", "newton": "Newton-CG"}
"""Names of solvers here, and SciPy's: a quasi-Newton method, and Newton's with conjugate gradients."""

_LAST_DIGITS = 1e3  # roundings that a sum over the images may add up to
_NO_VARIANCE = 1e-7  # of the largest eigenvalue: float32 features have no more digits than that


@dataclass(frozen=True, eq=False)
class Rotated:
    """Features (n, d) as ``rows`` (n, r) in ``axes`` (r, d) of length one; None: in the features' own axes."""

    rows: NDArray[np.float32]
    axes: NDArray[np.float32] | None

    def on_features(self, weight: Floats) -> Floats:
        """Weights (k, r) of the rows as weights (k, d) of the features."""
        return weight if self.axes is None else weight @ self.axes.astype(np.float64)


@dataclass(frozen=True, eq=False)
class Solution:
    """Weight (k, r) and bias (k,), whose sum is 0; steps taken, and whether the fit ended at the optimum."""

    weight: Floats
    bias: Floats
    iterations: int
    converged: bool

    def logits(self, rows: Rows) -> Rows:
        """(n, k) of rows (n, r), in the rows' precision."""
        found: Rows = rows @ self.weight.T.astype(rows.dtype) + self.bias.astype(rows.dtype)
        return found


def rotate(features: NDArray[np.float32], *, most: int) -> Rotated:
    """Features (n, d) in their principal axes: no more than min(n, d) of them, which loses nothing under an L2 penalty.

    Where min(n, d) is above ``most`` they stay as they are: the eigenvectors would cost more than the steps that they
    save.
    """
    images, channels = features.shape
    if min(images, channels) > most:
        return Rotated(features, None)
    if images <= channels:
        values, vectors = np.linalg.eigh((features @ features.T).astype(np.float64))
    else:
        values, vectors = np.linalg.eigh((features.T @ features).astype(np.float64))
    kept = values > max(_NO_VARIANCE * values[-1], np.finfo(np.float32).tiny)
    values, vectors = values[kept], vectors[:, kept]
    if images > channels:
        axes = vectors.T.astype(np.float32)
        return Rotated(features @ axes.T, axes)
    lengths = np.sqrt(values)
    return Rotated((vectors * lengths).astype(np.float32), (vectors / lengths).T.astype(np.float32) @ features)


def fit_softmax(
    rows: Rows,
    labels: NDArray[np.int64],
    classes: int,
    *,
    strength: float,
    weights: Floats | None = None,
    start: Solution | None = None,
    tolerance: float,
    max_iter: int,
    solver: str = "lbfgs",
) -> Solution:
    """The minimum of the module's objective at s = ``strength``, in the rows' precision.

    Args:
        rows: (n, r), as :func:`rotate` has them, or any features.
        labels: (n,) in 0..classes-1, each of which occurs.
        weights: (n,), of images, at least 0; None: all count the same.
        start: of another strength on rows in the same axes.
        tolerance: of the largest gradient, where the Hessian is about 1.
        solver: a name in :data:`SOLVERS`.
    """
    from scipy.optimize import OptimizeResult, minimize

    problem = _Problem(rows, labels, classes, strength, weights)
    options: dict[str, float] = {"maxiter": max_iter}
    products: dict[str, Callable[[Floats, Floats], Floats]] = {}
    if solver == "newton":
        options["xtol"] = tolerance / 10
        products["hessp"] = problem.hessian_product
    else:
        options |= {"gtol": tolerance, "ftol": tolerance**2 / 100, "maxfun": 2 * max_iter + 20}
    first = problem.start(start)
    found: OptimizeResult = minimize(problem, first, jac=True, method=SOLVERS[solver], options=options, **products)
    _, gradient = problem(found.x)
    weight, bias = problem.apart(found.x)
    steep = float(np.abs(gradient).max(initial=0.0))
    # At the end of its digits a line search finds no lower value, and says so: that is the optimum all the same.
    flat = steep <= max(10 * tolerance, _LAST_DIGITS * float(np.finfo(rows.dtype).eps))
    return Solution(weight, bias, int(found.nit), bool(found.nit < max_iter and flat))


class _Problem:
    """Value and gradient of the objective in scaled coordinates (k, r + 1), the last column the bias."""

    def __init__(
        self, rows: Rows, labels: NDArray[np.int64], classes: int, strength: float, weights: Floats | None
    ) -> None:
        share = np.full(len(rows), 1 / len(rows)) if weights is None else weights / weights.sum()
        self.share = share.astype(rows.dtype)
        spread = (np.square(rows).T @ self.share).astype(np.float64)
        self.scale = np.sqrt(np.append(spread / classes + 1 / strength, 1 / classes))
        self.rows = np.concatenate([rows, np.ones((len(rows), 1), rows.dtype)], axis=1)
        self.rows /= self.scale.astype(rows.dtype)
        self.targets = np.zeros((len(rows), classes), rows.dtype)
        self.targets[np.arange(len(rows)), labels] = 1
        self.decay = np.append(np.full(rows.shape[1], 1 / strength), 0.0) / np.square(self.scale)
        self.probabilities = self.targets

    def start(self, before: Solution | None) -> Floats:
        """Coordinates of another solution, or of one that knows the classes' shares alone."""
        if before is None:
            bias = np.log((self.share @ self.targets).astype(np.float64))
            weight = np.zeros((len(bias), len(self.scale) - 1))
        else:
            weight, bias = before.weight, before.bias
        together: Floats = np.concatenate([weight, bias[:, None]], axis=1) * self.scale
        return together.ravel()

    def apart(self, point: Floats) -> tuple[Floats, Floats]:
        """Weight (k, r) and bias (k,) of the rows."""
        both = point.reshape(-1, len(self.scale)) / self.scale
        return both[:, :-1], both[:, -1] - both[:, -1].mean()

    def __call__(self, point: Floats) -> tuple[float, Floats]:
        """Objective and gradient."""
        wide = point.reshape(-1, len(self.scale))
        logits = self.rows @ wide.T.astype(self.rows.dtype)
        logits -= logits.max(axis=1, keepdims=True)
        exponentials = np.exp(logits)
        total = exponentials.sum(axis=1, keepdims=True)
        losses = np.log(total[:, 0]) - np.einsum("ik,ik->i", logits, self.targets)
        self.probabilities = exponentials / total
        errors = (self.probabilities - self.targets) * self.share[:, None]
        value = float(self.share.astype(np.float64) @ losses) + 0.5 * float((self.decay * np.square(wide)).sum())
        gradient = errors.T @ self.rows + self.decay * wide
        return value, gradient.ravel()

    def hessian_product(self, point: Floats, direction: Floats) -> Floats:
        """H v at ``point``, where the objective was evaluated last."""
        wide = direction.reshape(-1, len(self.scale))
        along = self.rows @ wide.T.astype(self.rows.dtype)
        mean = np.einsum("ik,ik->i", along, self.probabilities)
        curved = self.probabilities * (along - mean[:, None]) * self.share[:, None]
        product: Floats = (curved.T @ self.rows + self.decay * wide).ravel()
        return product

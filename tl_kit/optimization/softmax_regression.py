"""Softmax regression with an L2 penalty: a convex fit in a basis in which few steps are enough.

The objective is (Σ_i w_i CE_i) / Σ_i w_i + |W|² / (2 s): scikit-learn's, divided by C Σ_i w_i, where s is C times the
images. The bias is not penalised. In the principal axes of the features the Hessian of the loss is about
(1/k) diag(e) / n, of the k classes and the eigenvalues e of X'X (Böhning 1992, "Multinomial logistic regression
algorithm", bounds it so), and coordinates divided by its root make all directions about as steep: ten to twenty steps
of L-BFGS do, where raw features take forty to a hundred.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tl_kit.config import PenaltyConfig
from tl_kit.optimization.side_by_side import Workers, side_by_side, workers

if TYPE_CHECKING:
    import torch

    from tl_kit.optimization.softmax_on_device import DevicePart

__all__ = ["SOLVERS", "Floats", "Images", "Rotated", "Solution", "fit_images", "fit_softmax", "rotate"]

Floats: TypeAlias = NDArray[np.float64]
Rows: TypeAlias = NDArray[np.float32] | NDArray[np.float64]

_LAST_DIGITS = 1e3  # roundings that a sum over the images may add up to
_NO_VARIANCE = 1e-7  # of the largest eigenvalue: float32 features have no more digits than that
_SMALL_PRODUCT = 1_000_000  # multiplications that OpenBLAS does without packing the matrices first: 1.7 times as fast
_FEWEST_ROWS = 48  # of a block, and two for each class; with fewer the sum over blocks costs what that saves
_MOST_PARTS = 16  # each has room for a gradient
_FEWER = 0.8  # images for a channel: from here on the images' Gram matrix takes less time, though it needs float64
_TOGETHER = 4096  # rows of one product otherwise


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


def rotate(features: NDArray[np.float32], *, most: int, threads: int = 1) -> Rotated:
    """Features (n, d) in their principal axes: no more than min(n, d) of them, which loses nothing under an L2 penalty.

    Where min(n, d) is above ``most`` they stay as they are: the eigenvectors would cost more than the steps that they
    save. ``threads`` change no bit.
    """
    from scipy.linalg import eigh

    images, channels = features.shape
    if min(images, channels) > most:
        return Rotated(features, None)
    if images <= _FEWER * channels or channels > most:
        # An axis of little variance is divided by little: the digits of float32 would not do.
        values, vectors = eigh((features @ features.T).astype(np.float64), driver="evd", overwrite_a=True)
        values, vectors = _varied(values, vectors)
        lengths = np.sqrt(values)
        return Rotated((vectors * lengths).astype(np.float32), (vectors / lengths).T.astype(np.float32) @ features)
    parts = [features[start : start + _TOGETHER] for start in range(0, images, _TOGETHER)]
    gram = sum(side_by_side(lambda part: part.T @ part, parts, threads=threads))
    # Any axes at right angles will do, so that float32 does, in half the time.
    axes = np.ascontiguousarray(_varied(*eigh(gram, driver="evd", overwrite_a=True))[1].T)
    return Rotated(np.concatenate(side_by_side(lambda part: part @ axes.T, parts, threads=threads)), axes)


def _varied(values: Rows, vectors: Rows) -> tuple[Rows, Rows]:
    """Eigenvalues (m,) and vectors (r, m), without those in which there is nothing but rounding."""
    kept = values > max(_NO_VARIANCE * values[-1], np.finfo(np.float32).tiny)
    return values[kept], vectors[:, kept]


class Images:
    """Rows (n, r) of images with their labels and shares of the loss: what the fits at all strengths have in common.

    ``parts`` hold the rows, ``spread`` (r + 1,) is the mean square of each column, the last one of ones, and ``shares``
    (k,) are those of the classes. So many ``threads`` may work on the parts at a time, which changes no bit of a fit:
    the parts follow from ``one_thread_below`` (:class:`tl_kit.config.PenaltyConfig`). With a ``device`` the loss is
    computed there, if it has room and is as exact.
    """

    def __init__(
        self,
        rows: Rows,
        labels: NDArray[np.int64],
        classes: int,
        *,
        weights: Floats | None = None,
        threads: int = 1,
        one_thread_below: int = PenaltyConfig.one_thread_below,
        device: torch.device | None = None,
    ) -> None:
        share = np.full(len(rows), 1 / len(rows)) if weights is None else weights / weights.sum()
        self.dtype, self.threads = rows.dtype, threads
        self.shares = np.bincount(labels, weights=share, minlength=classes)
        on_device = None if device is None else _on_device(rows, labels, share, classes, device)
        if on_device is not None:
            self.parts: Sequence[_Part | DevicePart] = [on_device]
        else:
            self.parts = _parts(rows, labels, share, classes, one_thread_below)
        self.spread: Floats = np.sum([part.spread() for part in self.parts], axis=0)


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
    threads: int = 1,
    one_thread_below: int = PenaltyConfig.one_thread_below,
    device: torch.device | None = None,
) -> Solution:
    """The minimum of the module's objective at s = ``strength``, in the rows' precision.

    Args:
        rows: (n, r), as :func:`rotate` has them, or any features.
        labels: (n,) in 0..classes-1, each of which occurs.
        weights: (n,), of images, at least 0; None: all count the same.
        start: of another strength on rows in the same axes.
        tolerance: of the largest gradient, where the Hessian is about 1.
        solver: a name in :data:`SOLVERS`.
        threads: at most, which change no bit.
        one_thread_below: as :class:`Images` has it.
        device: as :class:`Images` has it.
    """
    images = Images(
        rows, labels, classes, weights=weights, threads=threads, one_thread_below=one_thread_below, device=device
    )
    return fit_images(images, strength=strength, start=start, tolerance=tolerance, max_iter=max_iter, solver=solver)


def fit_images(
    images: Images, *, strength: float, start: Solution | None, tolerance: float, max_iter: int, solver: str = "lbfgs"
) -> Solution:
    """:func:`fit_softmax` of images that several strengths are fitted to."""
    with workers(min(images.threads, len(images.parts))) as run:
        problem = _Problem(images, strength, run)
        point, gradient, steps = SOLVERS[solver](problem, problem.start(start), tolerance=tolerance, max_iter=max_iter)
    weight, bias = problem.apart(point)
    steep = float(np.abs(gradient).max(initial=0.0))
    # At the end of its digits a line search finds no lower value, and says so: that is the optimum all the same.
    flat = steep <= max(10 * tolerance, _LAST_DIGITS * float(np.finfo(images.dtype).eps))
    return Solution(weight, bias, steps, bool(steps < max_iter and flat))


def _quasi_newton(problem: _Problem, first: Floats, *, tolerance: float, max_iter: int) -> tuple[Floats, Floats, int]:
    options = {"maxiter": max_iter, "gtol": tolerance, "ftol": tolerance**2 / 100, "maxfun": 2 * max_iter + 20}
    return _minimised(problem, first, "L-BFGS-B", options)


def _newton(problem: _Problem, first: Floats, *, tolerance: float, max_iter: int) -> tuple[Floats, Floats, int]:
    options = {"maxiter": max_iter, "xtol": tolerance / 10}
    return _minimised(problem, first, "Newton-CG", options, hessp=problem.hessian_product)


def _minimised(
    problem: _Problem, first: Floats, method: str, options: Mapping[str, float], **products: Callable[..., Floats]
) -> tuple[Floats, Floats, int]:
    """The point where SciPy's method ended, the gradient there, and the number of steps."""
    from scipy.optimize import minimize

    found = minimize(problem, first, jac=True, method=method, options=options, **products)
    return found.x, problem(found.x)[1], int(found.nit)


SOLVERS = {"lbfgs": _quasi_newton, "newton": _newton}
"""A quasi-Newton method, and Newton's with conjugate gradients; both are SciPy's."""


class _Part:
    """Some of the images, in blocks of rows (b, m, r + 1) whose last column is 1, and room for what is computed.

    The last block is filled up with rows of 0, which have no share. ``probabilities`` (k, b m) are those of the last
    evaluation: classes first, so that a sum over the classes is a sum of long rows.
    """

    def __init__(self, rows: Rows, labels: NDArray[np.int64], share: Floats, classes: int) -> None:
        images, axes = len(rows), rows.shape[1] + 1
        few = _SMALL_PRODUCT // (axes * classes)
        blocks = math.ceil(images / (few if few >= max(_FEWEST_ROWS, 2 * classes) else _TOGETHER))
        height = math.ceil(images / blocks)
        padded = np.zeros((blocks * height, axes), rows.dtype)
        padded[:images, :-1], padded[:images, -1] = rows, 1
        self.rows = padded.reshape(blocks, height, axes)
        filled = (0, blocks * height - images)
        self.at_label = np.pad(labels, filled), np.arange(blocks * height)
        self.share = np.pad(share, filled)
        self.narrow = self.share.astype(rows.dtype)
        self.logits = np.empty((blocks, height, classes), rows.dtype)
        self.probabilities = np.empty((classes, blocks * height), rows.dtype)
        self.gradients = np.empty((blocks, classes, axes), rows.dtype)

    def spread(self) -> Floats:
        """Its part of the mean square of each column (r + 1,)."""
        flat = self.rows.reshape(-1, self.rows.shape[2])
        found: Floats = (self.narrow @ np.square(flat)).astype(np.float64)
        return found

    def evaluate(self, weights: Rows) -> tuple[float, Rows]:
        """Its part of the loss, and the gradient (k, r + 1) by weights (k, r + 1)."""
        np.matmul(self.rows, weights.T, out=self.logits)
        flat = self.probabilities
        np.copyto(flat, self.logits.reshape(-1, len(flat)).T)
        flat -= flat.max(axis=0)
        picked = flat[self.at_label]
        np.exp(flat, out=flat)
        total = flat.sum(axis=0)
        flat /= total
        errors = flat * self.narrow
        errors[self.at_label] -= self.narrow
        return float(self.share @ (np.log(total) - picked)), self._onto_rows(errors)

    def product(self, direction: Rows) -> Rows:
        """Its part of the Hessian, where it was evaluated last, times a direction: both (k, r + 1)."""
        along = np.matmul(self.rows, direction.T).reshape(-1, len(direction)).T
        curved = self.probabilities * (along - (along * self.probabilities).sum(axis=0)) * self.narrow
        return self._onto_rows(curved)

    def _onto_rows(self, errors: Rows) -> Rows:
        """The products (k, r + 1) of errors (k, b m) and rows, summed over the blocks in their order."""
        np.copyto(self.logits.reshape(-1, len(errors)), errors.T)
        np.matmul(self.logits.transpose(0, 2, 1), self.rows, out=self.gradients)
        found: Rows = self.gradients.sum(axis=0)
        return found


def _parts(rows: Rows, labels: NDArray[np.int64], share: Floats, classes: int, one_thread_below: int) -> list[_Part]:
    """All images in one part, or in parts of a fifth of the work that is given to threads."""
    work = rows.size * classes
    count = 1 if work < one_thread_below else min(_MOST_PARTS, len(rows), math.ceil(5 * work / one_thread_below))
    bounds = np.linspace(0, len(rows), count + 1).astype(int)
    cuts = [slice(start, end) for start, end in pairwise(bounds)]
    return [_Part(rows[cut], labels[cut], share[cut], classes) for cut in cuts]


def _on_device(
    rows: Rows, labels: NDArray[np.int64], share: Floats, classes: int, device: torch.device
) -> DevicePart | None:
    """None where the device is less exact, or has no room."""
    import torch

    from tl_kit.optimization.softmax_on_device import DevicePart, is_exact

    with suppress(torch.OutOfMemoryError):
        if is_exact(device):
            part = DevicePart(rows, labels, share, classes, device)
            part.evaluate(np.zeros((classes, rows.shape[1] + 1), rows.dtype))  # as much room as a step takes
            return part
    return None


class _Problem:
    """Value and gradient of the objective in scaled coordinates (k, r + 1), the last column the bias."""

    def __init__(self, images: Images, strength: float, run: Workers) -> None:
        self.images, self.run = images, run
        penalty = np.append(np.full(len(images.spread) - 1, 1 / strength), 0.0)
        self.scale = np.sqrt(images.spread / len(images.shares) + penalty)
        self.decay = penalty / np.square(self.scale)

    def start(self, before: Solution | None) -> Floats:
        """Coordinates of another solution, or of one that knows the classes' shares alone."""
        if before is None:
            bias = np.log(self.images.shares)
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
        weights = self._narrow(wide)
        found = self.run(lambda part: part.evaluate(weights), self.images.parts)
        shrunk = self.decay * wide
        value = sum(loss for loss, _ in found) + 0.5 * float(shrunk.ravel() @ point)
        return value, self._scaled([gradient for _, gradient in found], shrunk)

    def hessian_product(self, point: Floats, direction: Floats) -> Floats:
        """H v at ``point``, where the objective was evaluated last."""
        wide = direction.reshape(-1, len(self.scale))
        weights = self._narrow(wide)
        return self._scaled(self.run(lambda part: part.product(weights), self.images.parts), self.decay * wide)

    def _narrow(self, wide: Floats) -> Rows:
        """Coordinates as weights of the rows, in their precision."""
        found: Rows = (wide / self.scale).astype(self.images.dtype)
        return found

    def _scaled(self, gradients: Sequence[Rows], shrunk: Floats) -> Floats:
        """The sum of the parts' gradients by the rows' weights, in the coordinates, and the penalty's."""
        total = gradients[0] if len(gradients) == 1 else np.sum(gradients, axis=0)
        found: Floats = (total / self.scale + shrunk).ravel()
        return found

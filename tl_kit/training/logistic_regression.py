"""The ``head`` policy in closed form: a penalised logistic regression on the trunk's cached features.

The problem is convex, so there is no learning rate and no epoch to choose; only the strength of the penalty, which
cross-validation of the training images decides. Reference: cs231n, "Transfer learning": a linear classifier on CNN
codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from tl_kit.config import HeadConfig
from tl_kit.errors import TrainingError
from tl_kit.machine.runtime import available_cores
from tl_kit.optimization.feature_scaling import fit_scaling
from tl_kit.optimization.penalty_choice import Folds, choose, drawn_folds, out_of_fold
from tl_kit.optimization.side_by_side import one_thread
from tl_kit.optimization.softmax_regression import Floats, Solution, fit_softmax, rotate

__all__ = ["HeadFit", "c_per_strength", "fit_head", "fit_heads"]


@dataclass(frozen=True, eq=False, kw_only=True)
class HeadFit:
    """A linear head on raw features: weight (classes, features) and bias (classes,).

    ``strength`` is the penalty's, C times the images, and ``c`` scikit-learn's C; ``tried`` the bounded NLL of each
    strength on the ``held_out`` images that chose it, empty where nothing did. ``converged`` is False where the steps
    that were allowed have not been enough.
    """

    weight: Floats
    bias: Floats
    strength: float
    c: float
    iterations: int
    solver: str
    converged: bool
    tried: dict[float, float] = field(default_factory=dict)
    held_out: int = 0

    @property
    def nll(self) -> float | None:
        """The bounded NLL that the strength was chosen by."""
        return self.tried.get(self.strength)


def c_per_strength(images: float, classes: int) -> float:
    """Scikit-learn's C of a strength of 1, where the images weigh so much in all.

    For two classes scikit-learn penalises the difference of their two rows: its C is twice that of the two.
    """
    return (2 if classes == 2 else 1) / images


def fit_head(
    features: NDArray[np.floating],
    labels: NDArray[np.int64],
    classes: int,
    *,
    folds: Folds | None = None,
    weights: Floats | None = None,
    threads: int | None = None,
    device: torch.device | None = None,
    config: HeadConfig = HeadConfig(),
) -> HeadFit:
    """Fit with the penalty that cross-validation of these images prefers (:mod:`tl_kit.optimization.penalty_choice`).

    The minimum of Σ_i w_i CE_i + |W|² / (2 C) on scaled features (:func:`fit_scaling`), which are scaled once, by all
    images, since that looks at no label. The result applies to the raw features.

    Args:
        features: (n, d).
        labels: (n,) with at least two classes present; an absent class gets no weight and a bias of -30.
        classes: k.
        folds: what is held out together; None: each image on its own, in folds drawn in their order.
        weights: (n,): an image of weight w counts as w images, in the scaling and the choice too. None: all weigh 1.
        threads: at most; None: as many as there are cores. They change no bit.
        device: a GPU, for much work (``PenaltyConfig.on_device_from``).
        config: its ``solver`` is lbfgs (a quasi-Newton method) or newton: the problem is convex, so both end in the
            same place. Where it has one strength, or ``c``, nothing is chosen.

    Raises NonFiniteError for features that are not finite, TrainingError for labels of one class.
    """
    with one_thread():
        problem = _Problem(
            features, labels, classes, weights=weights, blocks=None, threads=threads, device=device, config=config
        )
        return problem.chosen(folds or drawn_folds(problem.labels, config.folds))


def fit_heads(
    features: NDArray[np.floating],
    labels: NDArray[np.int64],
    classes: int,
    *,
    blocks: Sequence[int] | None = None,
    config: HeadConfig = HeadConfig(),
) -> list[HeadFit]:
    """:func:`fit_head` at each strength of ``config``, strongest penalty first; ``blocks`` as :func:`fit_scaling`."""
    found, before = list[HeadFit](), None
    with one_thread():
        problem = _Problem(
            features, labels, classes, weights=None, blocks=blocks, threads=None, device=None, config=config
        )
        for strength in problem.strengths:
            before = problem.solve(strength, before)
            found.append(problem.head(strength, before))
    return found


class _Problem:
    """Scaled features in their principal axes, and labels among the classes ``present`` (p,)."""

    def __init__(
        self,
        features: NDArray[np.floating],
        labels: NDArray[np.int64],
        classes: int,
        *,
        weights: Floats | None,
        blocks: Sequence[int] | None,
        threads: int | None,
        device: torch.device | None,
        config: HeadConfig,
    ) -> None:
        self.present, self.labels = np.unique(labels, return_inverse=True)
        if len(self.present) < 2:
            raise TrainingError("the images to fit a head to are all of one class: it needs two at least")
        self.classes, self.weights, self.config = classes, weights, config
        self.threads = available_cores() if threads is None else threads
        self.device = device if features.size * len(self.present) >= config.on_device_from else None
        self.scaling = fit_scaling(features, weights=weights, blocks=blocks)
        self.rotated = rotate(self.scaling(features), most=config.rotate_up_to, threads=self.threads)
        self.per_strength = c_per_strength(len(labels) if weights is None else float(weights.sum()), len(self.present))
        given = config.strengths if config.c is None else (config.c / self.per_strength,)
        self.strengths = tuple(sorted(given))

    def chosen(self, folds: Folds) -> HeadFit:
        """The fit to all images at the strength of choice, from where the fits out of fold ended."""
        if len(self.strengths) == 1:
            return self.head(self.strengths[0], self.solve(self.strengths[0], None))
        found = out_of_fold(
            self.rotated.rows,
            self.labels,
            len(self.present),
            folds,
            weights=self.weights,
            threads=self.threads,
            device=self.device,
            config=self.config,
        )
        position = choose(found, units=folds.units, weights=self.weights, config=self.config)
        if position is None:
            return self.head(self.config.usual, self.solve(self.config.usual, None))
        strength = found.strengths[position]
        fit = self.head(strength, self.solve(strength, found.starts[position]))
        losses, share = found.losses(self.weights)
        tried = dict(zip(found.strengths, (losses @ share).tolist(), strict=True))
        return replace(fit, tried=tried, held_out=len(found.images))

    def solve(self, strength: float, start: Solution | None) -> Solution:
        """The fit to all images."""
        return fit_softmax(
            self.rotated.rows.astype(np.float64),
            self.labels,
            len(self.present),
            strength=strength,
            weights=self.weights,
            start=start,
            tolerance=self.config.fine,
            max_iter=self.config.max_iter,
            solver=self.config.solver,
            threads=self.threads,
            one_thread_below=self.config.one_thread_below,
            device=self.device,
        )

    def head(self, strength: float, solution: Solution) -> HeadFit:
        """The same on raw features, a row for each class."""
        weight, bias = self.scaling.on_raw(self.rotated.on_features(solution.weight), solution.bias)
        weights, biases = np.zeros((self.classes, weight.shape[1])), np.full(self.classes, -30.0)
        weights[self.present], biases[self.present] = weight, bias
        return HeadFit(
            weight=weights,
            bias=biases,
            strength=strength,
            c=strength * self.per_strength if self.config.c is None else self.config.c,
            iterations=solution.iterations,
            solver=self.config.solver,
            converged=solution.converged,
        )

"""Nested cross-validation of a penalised softmax regression: every image predicted without it, penalty and all.

For each fold the penalty is chosen from what fits without it say of the others. A fit without two folds says something
of both, so that ten paths of fits serve five folds, where each fold with folds of its own would want twenty.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from tl_kit import metrics
from tl_kit.config import PenaltyConfig
from tl_kit.optimization.penalty_choice import Folds, OutOfFold, choose, fit_path
from tl_kit.optimization.side_by_side import side_by_side
from tl_kit.optimization.softmax_regression import Floats, Solution, fit_softmax

__all__ = ["nested_predictions"]


def nested_predictions(
    rows: NDArray[np.float32],
    labels: NDArray[np.int64],
    classes: int,
    folds: Folds,
    *,
    weights: Floats | None = None,
    threads: int = 1,
    config: PenaltyConfig,
) -> Floats:
    """Probabilities (n, k) of all images; those that are never held out are predicted by fits that have seen them.

    Args:
        rows: (n, r), scaled features, in any axes that are the same for all.
        labels: (n,) in 0..classes-1.
        folds: three at least; the images outside of any two of them must have all classes.
        weights: (n,), of images.
        threads: at most; they change no bit.
    """
    numbers: list[int] = folds.held_out.tolist()
    pairs = list(combinations(numbers, 2))
    each = max(1, threads // len(pairs))

    def path(pair: tuple[int, int]) -> list[Solution]:
        return fit_path(rows, labels, classes, _outside(folds, *pair), weights=weights, threads=each, config=config)

    paths = dict(zip(pairs, side_by_side(path, pairs, threads=threads), strict=True))

    def predicted(number: int) -> Floats:
        beside = {sum(pair) - number: path for pair, path in paths.items() if number in pair}
        others = OutOfFold.of(beside, rows, labels, folds, config.strengths)
        position = choose(others, units=folds.units, weights=weights, config=config)
        among = _outside(folds, number)
        solution = fit_softmax(
            rows[among],
            labels[among],
            classes,
            strength=config.usual if position is None else others.strengths[position],
            weights=None if weights is None else weights[among],
            start=None if position is None else others.starts[position],
            tolerance=config.rough,
            max_iter=config.max_iter,
            threads=max(1, threads // len(numbers)),
            one_thread_below=config.one_thread_below,
        )
        return metrics.softmax(solution.logits(rows[~among]))

    found = np.full((len(rows), classes), 1 / classes)
    for number, probabilities in zip(numbers, side_by_side(predicted, numbers, threads=threads), strict=True):
        found[folds.numbers == number] = probabilities
    return found


def _outside(folds: Folds, *numbers: int) -> NDArray[np.bool_]:
    return ~np.isin(folds.numbers, numbers)

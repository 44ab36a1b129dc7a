"""Weights of a weighted mean, fitted to labelled predictions: optimal on the simplex, or by forward selection."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["greedy_weights", "optimality_gap", "simplex_weights"]

FloatArray = NDArray[np.float64]

_EPS = np.finfo(np.float64).eps
_GAP = 1e-7
_EM_STEPS = 5000
_NEGLIGIBLE = 1e-9


def simplex_weights(likelihoods: FloatArray) -> FloatArray:
    """Weights w ≥ 0, Σ w = 1 that minimise the mean over images of -log Σ_j w_j p_j: a convex problem.

    SciPy's SLSQP solves it. If :func:`optimality_gap` shows that the result is not exact enough, expectation
    maximisation (w_j ← w_j · mean_i p_ij / Σ_l w_l p_il) finds the same optimum more slowly.

    Args:
        likelihoods: (m, n), the probability of each image's label under each member, clipped at 2.2e-16.

    Returns:
        Weights (m,).
    """
    p = _scaled(likelihoods)
    members = len(p)
    uniform = np.full(members, 1 / members)
    if members == 1:
        return uniform
    weights = _slsqp(p, uniform)
    weights[weights < _NEGLIGIBLE] = 0
    weights /= weights.sum()
    if optimality_gap(p, weights) <= _GAP:
        return weights
    weights = 0.999 * weights + 0.001 * uniform  # a weight of exactly 0 would stay 0
    for _ in range(_EM_STEPS):
        gradient = _gradient(p, weights)
        weights = weights * gradient
        weights /= weights.sum()
        if gradient.max() - 1 <= _GAP:
            break
    return weights


def optimality_gap(likelihoods: FloatArray, weights: FloatArray) -> float:
    """Optimality gap max_j g_j - 1: an upper bound, in nats, on the distance of the weights' mean NLL from the optimum.

    g_j = mean_i p_ij / Σ_l w_l p_il is the negative gradient. At the optimum all g_j ≤ 1, and g_j = 1 where w_j > 0
    (the Karush-Kuhn-Tucker conditions); by convexity, no other weights are better by more than this gap.
    """
    return max(0.0, float(_gradient(_scaled(likelihoods), weights).max() - 1))


def greedy_weights(
    likelihoods: FloatArray, *, rounds: int, bags: int = 1, share: float = 0.5, seed: int = 0
) -> FloatArray:
    """Forward selection of members with replacement, by NLL (Caruana et al. 2004); the weights (m,) are the counts.

    It starts with the n best members by their own NLL, for the n of lowest joint NLL. Then it adds, ``rounds`` times,
    the member that lowers the NLL most. It returns the best of all these sets, and the smallest of equally good ones.
    With ``bags`` > 1, the result is the average over that many random subsets of ``share`` of the members.

    Args:
        likelihoods: (m, n), the probability of each image's label under each member.
    """
    members = len(likelihoods)
    if bags <= 1:
        return _greedy(likelihoods, rounds)
    rng = np.random.default_rng(seed)
    weights = np.zeros(members)
    for _ in range(bags):
        bag = rng.choice(members, size=max(1, round(share * members)), replace=False)
        weights[bag] += _greedy(likelihoods[bag], rounds) / bags
    return weights


def _greedy(likelihoods: FloatArray, rounds: int) -> FloatArray:
    members = len(likelihoods)
    order = np.argsort(_losses(likelihoods), kind="stable")
    prefixes = np.cumsum(likelihoods[order], axis=0) / np.arange(1, members + 1)[:, None]
    losses = _losses(prefixes)
    start = int(losses.argmin())
    counts = np.zeros(members)
    counts[order[: start + 1]] = 1
    total = likelihoods[counts > 0].sum(axis=0)
    best, lowest = counts.copy(), float(losses[start])
    for _ in range(rounds):
        losses = _losses((total + likelihoods) / (counts.sum() + 1))
        added = int(losses.argmin())
        counts[added] += 1
        total = total + likelihoods[added]
        if losses[added] < lowest:
            best, lowest = counts.copy(), float(losses[added])
    result: FloatArray = best / best.sum()
    return result


def _losses(likelihoods: FloatArray) -> FloatArray:
    """Mean NLL of each row."""
    result: FloatArray = -np.log(np.maximum(likelihoods, _EPS)).mean(axis=-1)
    return result


def _scaled(likelihoods: FloatArray) -> FloatArray:
    """Each image's likelihoods divided by their largest: a constant in the objective, a better scale for the solver."""
    clipped = np.maximum(likelihoods, _EPS)
    result: FloatArray = clipped / clipped.max(axis=0)
    return result


def _gradient(p: FloatArray, weights: FloatArray) -> FloatArray:
    result: FloatArray = (p / np.maximum(weights @ p, _EPS)).mean(axis=1)
    return result


def _slsqp(p: FloatArray, start: FloatArray) -> FloatArray:
    from scipy.optimize import minimize

    def objective(weights: FloatArray) -> tuple[float, FloatArray]:
        return float(-np.log(np.maximum(weights @ p, _EPS)).mean()), -_gradient(p, weights)

    found = minimize(
        objective,
        start,
        jac=True,
        method="SLSQP",
        bounds=[(0, 1)] * len(start),
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like},
        options={"ftol": 1e-13, "maxiter": 500},
    )
    weights = np.clip(found.x, 0, None)
    if not np.isfinite(weights).all() or weights.sum() <= 0:
        return start
    result: FloatArray = weights / weights.sum()
    return result

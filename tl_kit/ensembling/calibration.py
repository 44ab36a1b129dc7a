"""Temperature scaling of probabilities (Guo et al. 2017), after pooling (Rahaman & Thiery 2021)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tl_kit import metrics

__all__ = ["TEMPERATURES", "fit_temperature", "tempered"]

FloatArray = NDArray[np.float64]

TEMPERATURES = (0.05, 20.0)
"""The range in which a temperature is looked for."""

_EPS = np.finfo(np.float64).eps


def tempered(probabilities: FloatArray, temperature: float) -> FloatArray:
    """softmax(log p / T), (n, k): T > 1 is less sure, T < 1 surer; the order of the classes stays.

    Logs are clipped at 2.2e-16. T = 1 returns the probabilities as they are.
    """
    if temperature == 1:
        return probabilities
    return metrics.softmax(np.log(np.maximum(probabilities, _EPS)) / temperature)


def fit_temperature(probabilities: FloatArray, labels: NDArray[np.int64]) -> float:
    """The T that minimises the NLL of :func:`tempered` on labelled images (n, k) and (n,), within ``TEMPERATURES``.

    The NLL is convex in β = 1/T, with derivative mean_i (Σ_c q_ic log p_ic - log p_i,label), where q are the tempered
    probabilities: its root is the optimum. Where it has none in the range, predictions that are worse than chance take
    the highest T; and predictions so right that every T is too high take 1: on images without a mistake the NLL falls
    for ever as T falls, which says nothing of the next image.
    """
    from scipy.optimize import brentq

    logs = np.log(np.maximum(probabilities, _EPS))
    at_label = logs[np.arange(len(labels)), labels].mean()

    def slope(beta: float) -> float:
        expected = (metrics.softmax(beta * logs) * logs).sum(axis=1).mean()
        return float(expected - at_label)

    coldest, hottest = TEMPERATURES
    if slope(1 / hottest) >= 0:
        # A flat NLL (all rows uniform) is no reason to change anything.
        return 1.0 if slope(1.0) == 0 else hottest
    if slope(1 / coldest) <= 0:
        return 1.0
    return 1 / float(brentq(slope, 1 / hottest, 1 / coldest, xtol=1e-12, rtol=1e-12))

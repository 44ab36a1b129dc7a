"""Temperature scaling of probabilities (Guo et al. 2017), after pooling (Rahaman & Thiery 2021)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tl_kit import metrics
from tl_kit.config import TemperatureConfig

__all__ = ["TEMPERATURES", "fit_temperature", "tempered"]

FloatArray = NDArray[np.float64]

TEMPERATURES = (0.05, 20.0)
"""The range of temperatures that is searched."""

_EPS = np.finfo(np.float64).eps


def tempered(probabilities: FloatArray, temperature: float) -> FloatArray:
    """softmax(log p / T), (n, k): T > 1 is less confident, T < 1 more; the order of the classes does not change.

    Logs are clipped at 2.2e-16. T = 1 returns the probabilities as they are.
    """
    if temperature == 1:
        return probabilities
    return metrics.softmax(np.log(np.maximum(probabilities, _EPS)) / temperature)


def fit_temperature(
    probabilities: FloatArray, labels: NDArray[np.int64], config: TemperatureConfig = TemperatureConfig()
) -> float:
    """The T in ``TEMPERATURES`` with the lowest NLL of :func:`tempered` on labelled images (n, k), (n,) and a prior.

    The prior is m = ``config.prior_images`` pseudo-images whose labels are distributed as p says; T = 1 is the best for
    them. In β = 1/T the sum

        Σ_i -log q_i,label - m/n Σ_i Σ_c p_ic log q_ic,    q ∝ p^β,

    is convex, with derivative Σ_i (e_i - log p_i,label) + m/n Σ_i (e_i - Σ_c p_ic log p_ic), e_i = Σ_c q_ic log p_ic:
    its root is the optimum. Predictions that are worse than chance may take the highest T. If the NLL without the prior
    falls all the way to the lowest T, 1 is returned: images without a mistake say nothing about future mistakes.
    """
    from scipy.optimize import brentq

    logs = np.log(np.maximum(probabilities, _EPS))
    at_label = logs[np.arange(len(labels)), labels].mean()
    as_said = (probabilities * logs).sum(axis=1).mean()
    share = config.prior_images / len(labels)

    def expected(beta: float) -> float:
        return float((metrics.softmax(beta * logs) * logs).sum(axis=1).mean())

    def slope(beta: float) -> float:
        e = expected(beta)
        return float(e - at_label + share * (e - as_said))

    coldest, hottest = TEMPERATURES
    if expected(1 / coldest) <= at_label or slope(1.0) == 0:  # the slope is 0 if all rows are uniform
        return 1.0
    if slope(1 / hottest) >= 0:
        return hottest
    if slope(1 / coldest) <= 0:
        return coldest
    return 1 / float(brentq(slope, 1 / hottest, 1 / coldest, xtol=1e-12, rtol=1e-12))

"""Choice between a pretrained network's fitted head, the network trained below it, and averages of the two.

Weight averages of the two ends are often better than both (Wortsman et al. 2022, "Robust fine-tuning of zero-shot
models", WiSE-FT). This module does not deal with networks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tl_kit import metrics
from tl_kit.combining.bootstrap import worse_by_more_than_noise
from tl_kit.config import GuardConfig
from tl_kit.optimization.class_weights import image_weights

__all__ = ["choose_network", "clearly_better"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def choose_network(
    candidates: Sequence[FloatArray],
    labels: IntArray,
    *,
    shares: Sequence[float],
    start: FloatArray,
    select: str,
    config: GuardConfig = GuardConfig(),
) -> int:
    """The network to keep: of those that are not clearly worse than the best, the one nearest to ``config.usual``.

    - An average takes part if its :func:`tl_kit.metrics.bounded_nll` is no higher than that of the head it is made of,
      and the trained network if its own is no higher than that of the head that would be kept. So the head always does.
    - The best of them in ``select`` (where equal, in NLL) is the measure: whoever is worse by more than
      ``config.noise`` standard errors of the paired difference is out.
    - Of the others the one of lowest bounded NLL is the measure: whoever is higher by more than ``config.errors``
      standard errors is out. What is left differs by chance; the best epoch has been chosen by the same images, so
      the lowest NLL would favour what was trained. Averages in the middle are good on most data sets (Wortsman
      et al. 2022).

    Args:
        candidates: probabilities of each (n, k) on the same images.
        labels: (n,).
        shares: of each, how much of it was trained: 1 for the trained network, 0 for the head.
        start: (n, k), of the head that averages are made of.
        select: ``accuracy``, ``balanced_accuracy`` or another figure of :func:`tl_kit.metrics.summary`, compared by
            the accuracy of images, or of classes where it counts these alike; ``nll``: by the NLL alone.

    Returns the position. Of equally near candidates, that of the lowest NLL, and of equal ones the first.
    """
    images = [_bounded(each, labels) for each in candidates]
    means = [float(losses.mean()) for losses in images]
    highest = {0.0: np.inf, 1.0: means[list(shares).index(0)]}
    limit = float(_bounded(start, labels).mean())
    left = [index for index, share in enumerate(shares) if means[index] <= highest.get(share, limit)]
    if select != "nll":
        weights = image_weights(labels) if select in ("balanced_accuracy", "macro_f1") else np.ones(len(labels))
        hits = {index: metrics.correct(candidates[index], labels) * weights for index in left}
        best = min(left, key=lambda index: (-float(hits[index].mean()), means[index]))
        left = [i for i in left if not worse_by_more_than_noise(hits[best] - hits[i], errors=config.noise)]
    lowest = min(left, key=lambda index: means[index])
    left = [i for i in left if not worse_by_more_than_noise(images[i] - images[lowest], errors=config.errors)]
    return min(left, key=lambda index: (abs(shares[index] - config.usual), means[index]))


def clearly_better(other: FloatArray, kept: FloatArray, labels: IntArray, *, errors: float) -> bool:
    """True where the NLL of ``other`` is below that of ``kept`` by more than noise; both are probabilities (n, k).

    The differences are paired by image. Losses are bounded as :func:`tl_kit.metrics.bounded_nll` bounds them.
    """
    return worse_by_more_than_noise(_bounded(kept, labels) - _bounded(other, labels), errors=errors)


def _bounded(probabilities: FloatArray, labels: IntArray) -> FloatArray:
    """Losses (n,) whose mean is :func:`tl_kit.metrics.bounded_nll`."""
    images, classes = probabilities.shape
    return metrics.image_losses((images * probabilities + 1 / classes) / (images + 1), labels)

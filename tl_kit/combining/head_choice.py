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
    head: int,
    select: str,
    config: GuardConfig = GuardConfig(),
) -> int:
    """The network to keep: the one of lowest NLL, of those that are not clearly less accurate than the others.

    NLLs are :func:`tl_kit.metrics.bounded_nll`, which no single image rules.

    - Whoever has a higher one than the head is out.
    - The best of the others in ``select`` (where equal, in NLL) is the measure: whoever is worse by more than
      ``config.noise`` standard errors of the paired difference is out.
    - Of those that are left, the lowest NLL is kept.

    Args:
        candidates: probabilities of each (n, k) on the same images.
        labels: (n,).
        head: the head's position among them.
        select: ``accuracy``, ``balanced_accuracy`` or another figure of :func:`tl_kit.metrics.summary`, compared by
            the accuracy of images, or of classes where it counts these alike; ``nll``: by the NLL alone.

    Returns the position; of equal candidates, that of the first.
    """
    means = [float(_bounded(each, labels).mean()) for each in candidates]
    left = [index for index, mean in enumerate(means) if mean <= means[head]]
    if select != "nll":
        weights = image_weights(labels) if select in ("balanced_accuracy", "macro_f1") else np.ones(len(labels))
        hits = {index: metrics.correct(candidates[index], labels) * weights for index in left}
        best = min(left, key=lambda index: (-float(hits[index].mean()), means[index]))
        left = [i for i in left if not worse_by_more_than_noise(hits[best] - hits[i], errors=config.noise)]
    return min(left, key=lambda index: means[index])


def clearly_better(other: FloatArray, kept: FloatArray, labels: IntArray, *, errors: float) -> bool:
    """True where the NLL of ``other`` is below that of ``kept`` by more than noise; both are probabilities (n, k).

    The differences are paired by image. Losses are bounded as :func:`tl_kit.metrics.bounded_nll` bounds them.
    """
    return worse_by_more_than_noise(_bounded(kept, labels) - _bounded(other, labels), errors=errors)


def _bounded(probabilities: FloatArray, labels: IntArray) -> FloatArray:
    """Losses (n,) whose mean is :func:`tl_kit.metrics.bounded_nll`."""
    images, classes = probabilities.shape
    return metrics.image_losses((images * probabilities + 1 / classes) / (images + 1), labels)

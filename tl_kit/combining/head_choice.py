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

__all__ = ["choose_network", "clearly_better"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def choose_network(candidates: Sequence[FloatArray], labels: IntArray, *, head: int, select: str, errors: float) -> int:
    """The candidate of lowest bounded NLL among those that are not clearly worse in ``select``; its position.

    Only candidates whose :func:`tl_kit.metrics.bounded_nll` is no higher than the head's take part, so that the head
    always does. The best of them in ``select`` (where equal, in NLL) is the measure: whoever is worse by more than
    ``errors`` standard errors of the paired difference is out. Of equally low NLL, the first.

    Args:
        candidates: probabilities of each (n, k) on the same images.
        labels: (n,).
        head: the head's position.
        select: ``accuracy``, ``balanced_accuracy`` or another figure of :func:`tl_kit.metrics.summary`, compared by
            the accuracy of images, or of classes where it counts these alike; ``nll``: by the NLL alone.
        errors: how many standard errors are noise.
    """
    losses = [metrics.bounded_nll(each, labels) for each in candidates]
    sound = [index for index, loss in enumerate(losses) if loss <= losses[head]]
    if select == "nll":
        return min(sound, key=lambda index: losses[index])
    weights = _image_weights(labels) if select in ("balanced_accuracy", "macro_f1") else np.ones(len(labels))
    hits = {index: metrics.correct(candidates[index], labels) * weights for index in sound}
    best = min(sound, key=lambda index: (-float(hits[index].mean()), losses[index]))
    near = [index for index in sound if not worse_by_more_than_noise(hits[best] - hits[index], errors=errors)]
    return min(near, key=lambda index: losses[index])


def clearly_better(other: FloatArray, kept: FloatArray, labels: IntArray, *, errors: float) -> bool:
    """True where the NLL of ``other`` is below that of ``kept`` by more than noise; both are probabilities (n, k).

    The differences are paired by image. Losses are bounded as :func:`tl_kit.metrics.bounded_nll` bounds them.
    """
    images, classes = kept.shape
    losses = [metrics.image_losses((images * each + 1 / classes) / (images + 1), labels) for each in (kept, other)]
    return worse_by_more_than_noise(losses[0] - losses[1], errors=errors)


def _image_weights(labels: IntArray) -> FloatArray:
    """Weights (n,) of mean 1 under which every class that occurs counts the same."""
    from sklearn.utils.class_weight import compute_sample_weight

    return np.asarray(compute_sample_weight("balanced", labels), dtype=np.float64)

"""Class weights: under them, classes of uneven size count the same."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["class_weights", "image_weights"]


def class_weights(labels: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """n / (k n_c) for each of k classes with n_c of the n ``labels`` (King & Zeng 2001): (k,), all 1 if even.

    Classes without images, which a few images of a trial can have, count neither in k nor in a loss: their weight is 1.
    """
    from sklearn.utils.class_weight import compute_class_weight

    present = np.unique(labels)
    weights = np.ones(classes)
    weights[present] = compute_class_weight("balanced", classes=present, y=labels)
    return weights


def image_weights(labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Each image's class weight (n,), over the classes that occur; their sum is n."""
    from sklearn.utils.class_weight import compute_sample_weight

    weights: NDArray[np.float64] = compute_sample_weight("balanced", labels)
    return weights

"""The closed-form head cross-validated, from cached features: scores on images that had no part in any choice.

Every training and validation image is predicted by a head that was fitted, penalty and all, without it (nested
cross-validation: Varma & Simon 2006, "Bias in error estimation when using cross-validation for model selection"). These
are several times as many images as the validation split has. For the head that is fitted to validation images too, only
these are held out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from tl_kit import metrics
from tl_kit.data.manifest import Sample, labels_of
from tl_kit.data.splits import keys_of
from tl_kit.finetuning.checks import head_config
from tl_kit.finetuning.run import Run
from tl_kit.finetuning.trunk_reuse import Reuse
from tl_kit.machine.runtime import available_cores
from tl_kit.optimization.feature_scaling import fit_scaling
from tl_kit.optimization.nested_choice import nested_predictions
from tl_kit.optimization.penalty_choice import Folds, drawn_folds
from tl_kit.optimization.side_by_side import one_thread, side_by_side
from tl_kit.optimization.softmax_regression import rotate
from tl_kit.training.logistic_regression import c_per_strength, fit_head

__all__ = ["cross_validated_head", "folds_for", "penalty_folds", "refit_predictions"]


def penalty_folds(samples: Sequence[Sample], *, folds: int, seed: int) -> Folds:
    """Folds of the images that a penalty is chosen on; copies, near copies and images of one group stay together.

    They follow from the images' contents and the split's seed, as splits do.
    """
    _, units = np.unique(keys_of(samples, seed=seed), return_inverse=True)
    return drawn_folds(labels_of(tuple(samples)), folds, units=units)


def cross_validated_head(run: Run, reuse: Reuse) -> dict[str, Any] | None:
    """``folds``, ``images`` and the scores of :func:`tl_kit.metrics.summary` out of fold; None where it is left out.

    Folds are those of :func:`penalty_folds`, of the training and validation images together. The test split takes no
    part. The features of both splits must have been filled. It is left out, with a word, where there are too many
    images or too few of a class.
    """
    samples = (*run.manifest.split("train"), *run.manifest.split("val"))
    folds = folds_for(run, reuse)
    if isinstance(folds, str):
        run.reporter.message(f"the head is not cross-validated: {folds}")
        return None
    features: NDArray[np.float32] = reuse.rows(samples).float().numpy()
    labels, classes, config = labels_of(samples), len(run.manifest.classes), head_config(run.config)
    weights = run.image_weights(labels)
    if config.c is not None:
        config = replace(config, strengths=(config.c / c_per_strength(len(labels), classes),))
    threads = available_cores()
    with one_thread():
        scaled = fit_scaling(features, weights=weights)(features)
        rows = rotate(scaled, most=config.rotate_up_to, threads=threads).rows
        found = nested_predictions(rows, labels, classes, folds, weights=weights, threads=threads, config=config)
    return {"folds": len(folds.held_out), "images": len(labels), **metrics.summary(found, labels)}


def refit_predictions(run: Run, reuse: Reuse, *, strength: float) -> NDArray[np.float64] | None:
    """Probabilities (n, k) of the validation images by heads fitted to all other images, fold by fold.

    The fits are to all training images and the other folds of the validation images, at this penalty: they are as good
    as the head that is fitted to all of them, but for the fold. None where that would take long
    (``HeadConfig.cross_validate_below``).
    """
    train, val = run.manifest.split("train"), run.manifest.split("val")
    config, classes = head_config(run.config), len(run.manifest.classes)
    if _takes_long(run, reuse, len(train) + len(val)):
        return None
    features: NDArray[np.float32] = reuse.rows((*train, *val)).float().numpy()
    folds = penalty_folds(val, folds=config.folds, seed=run.config.split.split_seed)
    numbers = np.maximum(folds.numbers, 0)  # a class's only image is held out, too: training images have the class
    labels, found = labels_of((*train, *val)), np.empty((len(val), classes))

    def predict(number: int) -> None:
        out = np.flatnonzero(numbers == number)
        kept = np.delete(np.arange(len(labels)), len(train) + out)
        fit = fit_head(
            features[kept],
            labels[kept],
            classes,
            weights=run.image_weights(labels[kept]),
            threads=1,
            config=replace(config, strengths=(strength,)),
        )
        found[out] = metrics.softmax(features[len(train) + out].astype(np.float64) @ fit.weight.T + fit.bias)

    with one_thread():
        side_by_side(predict, np.unique(numbers).tolist(), threads=available_cores())
    return found


def folds_for(run: Run, reuse: Reuse) -> Folds | str:
    """The folds of all training and validation images; or why there are none."""
    samples = (*run.manifest.split("train"), *run.manifest.split("val"))
    config, classes = run.config.head, len(run.manifest.classes)
    if _takes_long(run, reuse, len(samples)):
        return f"{len(samples):,} images of {classes} classes would take long; --folds does it"
    found = penalty_folds(samples, folds=max(3, config.folds), seed=run.config.split.split_seed)
    labels = labels_of(samples)
    spread = [len(np.unique(found.numbers[labels == label])) for label in range(classes)]
    if (found.numbers < 0).any() or min(spread) < 3:
        return "a class has too few images that can be separated"
    return found


def _takes_long(run: Run, reuse: Reuse, images: int) -> bool:
    """True where a step of a fit to so many images is too much work to cross-validate."""
    layer = run.model.get_submodule(reuse.features.tail.cut)
    assert isinstance(layer, nn.Linear)
    return images * layer.in_features * len(run.manifest.classes) > run.config.head.cross_validate_below

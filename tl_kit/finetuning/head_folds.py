"""The closed-form head cross-validated, from cached features: scores on images that had no part in any choice.

The validation column of such a run is selected on: its penalty is the one that suits these images best. Here every
training and validation image is predicted by a head that was fitted, penalty and all, without it (nested
cross-validation: Varma & Simon 2006, "Bias in error estimation when using cross-validation for model selection").
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from tl_kit import metrics
from tl_kit.data.folds import fold_manifests
from tl_kit.data.manifest import Manifest, Sample, labels_of
from tl_kit.errors import ConfigError
from tl_kit.finetuning.checks import head_config
from tl_kit.finetuning.run import Run
from tl_kit.finetuning.trunk_reuse import Reuse
from tl_kit.training.class_weights import image_weights
from tl_kit.training.logistic_regression import fit_head

__all__ = ["cross_validated_head", "folds_for"]


def cross_validated_head(run: Run, reuse: Reuse) -> dict[str, Any] | None:
    """``folds``, ``images`` and the scores of :func:`tl_kit.metrics.summary` out of fold; None where it is left out.

    Folds are stratified, keep images of equal content and of one group together, and follow from the images and the
    split's seed. In each of them the penalty is chosen on a part of the others. The test split takes no part. The
    features of both splits must have been filled. It is left out, with a word, where there are too many images or too
    few of a class.
    """
    found = folds_for(run, reuse)
    if isinstance(found, str):
        run.reporter.message(f"the head is not cross-validated: {found}")
        return None
    classes = len(run.manifest.classes)
    pooled, labels = [], []
    for fold in found:
        pooled.append(_predicted(run, reuse, fold))
        labels.append(labels_of(fold.split("test")))
    truth = np.concatenate(labels)
    scores = metrics.summary(np.concatenate(pooled).reshape(-1, classes), truth)
    return {"folds": len(found), "images": len(truth), **scores}


def folds_for(run: Run, reuse: Reuse) -> tuple[Manifest, ...] | str:
    """The folds, as manifests whose ``test`` is held out; or why there are none."""
    manifest, config = run.manifest, run.config
    train, val = manifest.split("train"), manifest.split("val")
    pool = replace(manifest, samples=(*train, *val), made_splits=())
    layer = run.model.get_submodule(reuse.features.tail.cut)
    assert isinstance(layer, nn.Linear)
    work = len(pool.samples) * layer.in_features * len(manifest.classes)
    if work > config.head.cross_validate_below:
        return f"{len(pool.samples):,} images of {len(manifest.classes)} classes would take long; --folds does it"
    share = replace(config.split, val_fraction=len(val) / len(pool.samples), test_fraction=0.0)
    for folds in range(config.head.folds, 1, -1):
        try:
            return fold_manifests(pool, folds, share)
        except ConfigError:
            continue
    return "a class has too few images that can be separated"


def _predicted(run: Run, reuse: Reuse, fold: Manifest) -> NDArray[np.float64]:
    """Probabilities (n, k) of the images held out."""
    splits = {split: fold.split(split) for split in ("train", "val", "test")}
    features = {split: _features(reuse, samples) for split, samples in splits.items()}
    labels = {split: labels_of(samples) for split, samples in splits.items()}
    balanced = run.balance.method != "none"
    fit = fit_head(
        features["train"],
        labels["train"],
        len(fold.classes),
        val_features=features["val"],
        val_labels=labels["val"],
        weights=image_weights(labels["train"]) if balanced else None,
        val_weights=image_weights(labels["val"]) if balanced else None,
        config=head_config(run.config),
    )
    return metrics.softmax(features["test"].astype(np.float64) @ fit.weight.T + fit.bias)


def _features(reuse: Reuse, samples: tuple[Sample, ...]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = reuse.rows(samples).float().numpy()
    return found

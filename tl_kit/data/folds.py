"""Folds for cross-validation: stratified, independent of names and order; groups and copies stay together."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tl_kit.config import DataConfig
from tl_kit.data.manifest import Manifest, Sample, in_order
from tl_kit.data.splits import assign_splits, keys_of
from tl_kit.errors import ConfigError

__all__ = ["assign_folds", "check_folds", "fold_manifests", "pool_of"]


def check_folds(folds: int) -> None:
    """Raises ConfigError for fewer than two folds."""
    if folds < 2:
        raise ConfigError(f"--folds {folds}: must be at least 2")


def pool_of(manifest: Manifest) -> tuple[Sample, ...]:
    """The images that take part in cross-validation: all except a test split that came with the data."""
    return tuple(s for s in manifest.samples if s.split != "test" or "test" in manifest.made_splits)


def fold_manifests(manifest: Manifest, folds: int, config: DataConfig) -> tuple[Manifest, ...]:
    """One manifest per fold: ``test`` is the fold, ``val`` a share of the other images, ``train`` the rest.

    Each image of :func:`pool_of` is in exactly one ``test``. Folds are stratified by class; images of equal content or
    of one group always stay together, in the folds and in ``val`` (:func:`assign_splits`). The result depends only on
    the images' contents and ``config.split_seed``.

    Raises ConfigError, with the largest smaller number of folds that works, if ``folds`` is below 2, if there are more
    folds than separable images, if every class has fewer images than there are folds, or if some fold would train
    without one of the classes or without ``val``.
    """
    check_folds(folds)
    pool = pool_of(manifest)
    keys = keys_of(pool, seed=config.split_seed)
    found, problem = _splits(pool, keys, folds, config, manifest.classes)
    if problem:
        most = min(folds, len(set(keys)) + 1) - 1
        smaller = (k for k in range(most, 1, -1) if not _splits(pool, keys, k, config, manifest.classes)[1])
        works = next(smaller, None)
        hint = f"the largest number below that works is {works}" if works else "no smaller number works: add images"
        raise ConfigError(f"--folds {folds}: {problem}; {hint}")
    return tuple(_with_splits(manifest, pool, splits) for splits in found)


def _with_splits(manifest: Manifest, pool: Sequence[Sample], splits: Sequence[str]) -> Manifest:
    samples = in_order(replace(sample, split=split) for sample, split in zip(pool, splits, strict=True))
    return replace(manifest, samples=samples, notes=(), made_splits=())


def _splits(
    pool: Sequence[Sample], keys: Sequence[str], folds: int, config: DataConfig, classes: Sequence[str]
) -> tuple[list[list[str]], str]:
    """Splits of the images, one list a fold; and what is wrong with the folds, empty if they are sound."""
    units = len(set(keys))
    if folds > units:
        return [], f"there are only {units} images or groups that can be separated"
    if folds > max(Counter(sample.label for sample in pool).values()):
        return [], "no class has so many images"
    numbers = assign_folds([sample.label for sample in pool], keys, folds, seed=config.split_seed)
    found = []
    for number in range(folds):
        rest = [index for index in range(len(pool)) if numbers[index] != number]
        splits = ["test"] * len(pool)
        for index, split in zip(rest, _val_and_train([pool[i] for i in rest], config), strict=True):
            splits[index] = split
        problem = _problem(pool, keys, splits, number, classes)
        if problem:
            return [], problem
        found.append(splits)
    return found, ""


def _val_and_train(rest: Sequence[Sample], config: DataConfig) -> list[str]:
    return assign_splits(
        [sample.label for sample in rest],
        [sample.digest for sample in rest],
        [sample.group for sample in rest],
        [sample.near for sample in rest],
        val_fraction=config.val_fraction,
        test_fraction=0.0,
        seed=config.split_seed,
    )


def assign_folds(labels: Sequence[int], keys: Sequence[str], folds: int, *, seed: int) -> NDArray[np.int64]:
    """The fold 0..folds-1 of each image (n,); images of equal key are in the same fold.

    At least one class must have as many images as there are folds, and there must be as many keys; a fold may be empty.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    _, groups = np.unique(keys, return_inverse=True)
    # Up to version 1.7, scikit-learn's own shuffling confuses the classes of groups.
    order = np.argsort(np.random.RandomState(seed).permutation(int(groups.max()) + 1))
    # Classes are numbered by first occurrence in the order of the keys, so their names have no influence.
    ranks: dict[int, int] = {}
    for index in sorted(range(len(labels)), key=lambda i: (keys[i], labels[i])):
        ranks.setdefault(labels[index], len(ranks))
    numbered = np.array([ranks[label] for label in labels])
    drawn = np.zeros(len(labels), dtype=np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", UserWarning
        )  # about a class of fewer images than folds; the caller checks what matters
        splitter = StratifiedGroupKFold(folds)
        for number, (_, held_out) in enumerate(splitter.split(numbered, numbered, order[groups])):
            drawn[held_out] = number
    return drawn


def _problem(
    pool: Sequence[Sample], keys: Sequence[str], splits: Sequence[str], number: int, classes: Sequence[str]
) -> str:
    """The reason why a fold's run could not start; empty if it could."""
    if "test" not in splits:
        return f"fold {number + 1} would hold out no image, since the groups are too large"
    trained = {sample.label for sample, split in zip(pool, splits, strict=True) if split == "train"}
    for label, name in enumerate(classes):
        if label not in trained:
            units = len({key for sample, key in zip(pool, keys, strict=True) if sample.label == label})
            has = "a single image or group" if units == 1 else f"{units} images or groups, all in one fold"
            return f"class '{name}' has {has}, and fold {number + 1} would train without it"
    if "val" not in splits:
        return f"fold {number + 1} would have no image to validate with"
    return ""

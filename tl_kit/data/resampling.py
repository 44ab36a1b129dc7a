"""Resampling: different training images for each member of an ensemble, with common validation and test images."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import repeat

import numpy as np

from tl_kit.config import FinetuneConfig, Vary
from tl_kit.data.folds import assign_folds
from tl_kit.data.manifest import Manifest, Sample, in_order
from tl_kit.data.splits import keys_of
from tl_kit.errors import ConfigError

__all__ = ["bootstrap_sample", "leave_folds_out", "member_images"]


def member_images(manifest: Manifest, config: FinetuneConfig, members: int, vary: Vary) -> Iterator[Manifest]:
    """Yield each member's images: under ``vary`` "folds" and "bootstrap" their own, else the same for all.

    Raises the errors of :func:`leave_folds_out`.
    """
    if vary == "folds":
        yield from leave_folds_out(manifest, members, seed=config.split.split_seed)
    elif vary == "bootstrap":
        yield from (bootstrap_sample(manifest, seed=config.seed, draw=draw) for draw in range(1, members + 1))
    else:
        yield from repeat(manifest, members)


def bootstrap_sample(manifest: Manifest, *, seed: int, draw: int) -> Manifest:
    """A bootstrap sample of the training images, of the same size, drawn within each class (Breiman 1996).

    Every class keeps its number of images. An image drawn k times is in the manifest k times. The sample depends on the
    images' contents, ``seed`` and the number of the ``draw``.
    """
    drawn: list[Sample] = []
    for samples in _by_class(manifest).values():
        first = int(samples[0].digest[:15], 16)  # so names and the order of classes have no influence
        chosen = np.random.default_rng([seed, draw, first]).integers(len(samples), size=len(samples))
        drawn += [samples[index] for index in chosen]
    return _with_train(manifest, drawn)


def leave_folds_out(manifest: Manifest, folds: int, *, seed: int) -> tuple[Manifest, ...]:
    """One manifest per fold, each without that stratified fold of the training images (Krogh & Vedelsby 1995).

    Each training image is left out once. Images of one group, and copies, are left out together. The folds depend on
    the images' contents and ``seed``. Raises ConfigError if every class has fewer images than there are folds, or if
    some member would train without one of the classes.
    """
    train = manifest.split("train")
    keys = keys_of(train, seed=seed)
    most = min(len(set(keys)), max(Counter(s.label for s in train).values()))
    if folds > most:
        raise ConfigError(f"--members {folds}: no class has training images for more than {most} folds; give fewer")
    numbers = assign_folds([s.label for s in train], keys, folds, seed=seed)
    found = []
    for number in range(folds):
        kept = [sample for sample, fold in zip(train, numbers, strict=True) if fold != number]
        missing = {s.label for s in train} - {s.label for s in kept}
        if missing:
            name = manifest.classes[min(missing)]
            raise ConfigError(
                f"--vary folds: class '{name}' has all its training images in one fold; add images or groups to it, "
                "or use --vary bootstrap"
            )
        found.append(_with_train(manifest, kept))
    return tuple(found)


def _by_class(manifest: Manifest) -> dict[int, list[Sample]]:
    """The training images of each class, sorted by content."""
    found: dict[int, list[Sample]] = defaultdict(list)
    for sample in sorted(manifest.split("train"), key=lambda s: (s.digest, str(s.path))):
        found[sample.label].append(sample)
    return found


def _with_train(manifest: Manifest, train: list[Sample]) -> Manifest:
    others = [sample for sample in manifest.samples if sample.split != "train"]
    return replace(manifest, samples=in_order([*train, *others]))

"""Other training images for each member of an ensemble, the same validation and test images for all."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np

from tl_kit.data.folds import assign_folds
from tl_kit.data.manifest import Manifest, Sample, in_order
from tl_kit.data.splits import keys_of
from tl_kit.errors import ConfigError

__all__ = ["bootstrap_sample", "leave_folds_out"]


def bootstrap_sample(manifest: Manifest, *, seed: int, draw: int) -> Manifest:
    """As many training images as there are, drawn with replacement (Breiman 1996), within each class.

    So every class keeps its number of images. An image drawn k times is in the manifest k times. The sample follows
    from the images' contents, ``seed`` and the number of the ``draw``.
    """
    drawn: list[Sample] = []
    for samples in _by_class(manifest).values():
        first = int(samples[0].digest[:15], 16)  # names, and the order of classes, have no influence
        chosen = np.random.default_rng([seed, draw, first]).integers(len(samples), size=len(samples))
        drawn += [samples[index] for index in chosen]
    return _with_train(manifest, drawn)


def leave_folds_out(manifest: Manifest, folds: int, *, seed: int) -> tuple[Manifest, ...]:
    """One manifest a fold, each without that stratified fold of the training images (Krogh & Vedelsby 1995).

    Each training image is left out once. Images of one group, and copies, are left out together. The folds follow from
    the images' contents and ``seed``. Raises ConfigError where there are more folds than images of any class, or some
    member would train without one of the classes.
    """
    train = manifest.split("train")
    keys = keys_of(train, seed=seed)
    most = min(len(set(keys)), max(Counter(s.label for s in train).values()))
    if folds > most:
        raise ConfigError(f"--members {folds}: no class has so many training images to be cut into folds; give fewer")
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
    """The training images of each class, in order of content."""
    found: dict[int, list[Sample]] = defaultdict(list)
    for sample in sorted(manifest.split("train"), key=lambda s: (s.digest, str(s.path))):
        found[sample.label].append(sample)
    return found


def _with_train(manifest: Manifest, train: list[Sample]) -> Manifest:
    others = [sample for sample in manifest.samples if sample.split != "train"]
    return replace(manifest, samples=in_order([*train, *others]))

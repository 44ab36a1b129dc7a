"""Shortcuts: classes that can be predicted from an image's size, file, EXIF data or border alone.

A network learns the easiest solution (Geirhos et al. 2020, "Shortcut learning in deep neural networks"). If all photos
of one class come from another camera, it learns the camera, and the accuracy says nothing about other photos.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from tl_kit.config import ShortcutConfig
from tl_kit.images.decode import open_header, upright_size

__all__ = ["KINDS", "Shortcut", "Traits", "border_colour", "find_shortcuts", "has_pages", "read_traits"]

KINDS = {
    "size": "width, height and aspect ratio",
    "file": "file type, colour mode, JPEG quality and file ending",
    "exif": "EXIF data (whether there are any, orientation, camera, software)",
    "border": "the mean colour of the image's border",
}
_TAGS = (ExifTags.Base.Orientation, ExifTags.Base.Make, ExifTags.Base.Model, ExifTags.Base.Software)
_Value = float | str | None


@dataclass(frozen=True, slots=True)
class Traits:
    """Traits of an image that do not depend on its content: for each of :data:`KINDS` a few numbers or names."""

    size: tuple[_Value, ...]
    file: tuple[_Value, ...]
    exif: tuple[_Value, ...]
    border: tuple[_Value, ...]


@dataclass(frozen=True, kw_only=True)
class Shortcut:
    """The class that a tree predicts best from one of :data:`KINDS`, on held-out images.

    ``recall`` is the share of its images that the tree assigns to it, ``others`` the share of the other classes'
    images; ``balanced`` is the balanced accuracy over all classes, ``chance`` that of guessing.
    """

    kind: str
    label: int
    recall: float
    others: float
    balanced: float
    chance: float


def read_traits(data: bytes, *, suffix: str, border: tuple[float, ...]) -> Traits:
    """Traits of a file's bytes and extension ``suffix``; ``border``: from :func:`border_colour`. Raises ImageError."""
    image = open_header(data)
    exif = _exif(image)
    width, height = upright_size(image)
    tables = getattr(image, "quantization", None)
    quality = float(np.mean(tables[0])) if tables and 0 in tables else 0.0
    return Traits(
        size=(float(width), float(height), width / height),
        file=(image.format, image.mode, quality, suffix.lower()),
        exif=(float(bool(exif)), *(str(exif[tag]) if tag in exif else None for tag in _TAGS)),
        border=border,
    )


def has_pages(data: bytes) -> bool:
    """True if a file holds several pictures: pages of a TIFF, or frames of an animation. Raises ImageError."""
    image = open_header(data)
    return image.format in ("TIFF", "GIF", "WEBP", "PNG") and bool(getattr(image, "is_animated", False))


def border_colour(pixels: NDArray[np.uint8]) -> tuple[float, float, float]:
    """Mean of each channel over the outermost pixels of an image (h, w, 3)."""
    edges = (pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1])
    red, green, blue = np.concatenate(edges).mean(axis=0, dtype=np.float64)
    return float(red), float(green), float(blue)


def find_shortcuts(
    traits: Sequence[Traits], labels: Sequence[int], groups: Sequence[str], *, config: ShortcutConfig
) -> Iterator[Shortcut]:
    """For each of :data:`KINDS`, the class that it reveals, if there is one.

    A decision tree (depth 2 + log2 of the number of classes, balanced class weights) is cross-validated. Its folds do
    not divide the ``groups``, whose names must not be sorted by class (:func:`unit_keys`). A class is revealed if its
    recall exceeds its false-positive rate by ``config.excess`` (Youden's J), and if chance would give that many hits in
    fewer than ``config.false_alarms`` of data sets: the tail of the hypergeometric distribution, times the number of
    classes and kinds (Bonferroni). A group counts as one image. Classes of fewer than ``config.folds`` images or groups
    are left out.
    """
    y = np.asarray(labels, dtype=np.int64)
    _, units = np.unique(groups, return_inverse=True)
    sizes = {label: len(np.unique(units[y == label])) for label in np.unique(y)}
    kept = np.flatnonzero([sizes[label] >= config.folds for label in y])
    if len(set(y[kept].tolist())) < 2:
        return
    for kind in KINDS:
        columns = list(zip(*(getattr(traits[index], kind) for index in kept.tolist()), strict=True))
        values = np.column_stack([_numbers(column) for column in columns])
        if (values == values[0]).all():
            continue
        predicted = _held_out(values, y[kept], units[kept], config)
        _, one = np.unique(units[kept], return_index=True)  # images of a group are not independent
        best = _best(kind, y[kept][one], predicted[one], config)
        if best is not None:
            yield best


def _exif(image: Image.Image) -> dict[int, object]:
    try:
        return dict(image.getexif())
    except Exception:  # noqa: BLE001 - broken metadata is as good as none
        return {}


def _numbers(column: Sequence[_Value]) -> NDArray[np.float64]:
    """A column as numbers; names become their frequency, so that a tree can split off rare or common ones."""
    if all(isinstance(value, float) for value in column):
        return np.array(column, dtype=np.float64)
    ranks = {value: float(rank) for rank, (value, _) in enumerate(Counter(sorted(column, key=str)).most_common())}
    return np.array([ranks[value] for value in column])


def _held_out(
    values: NDArray[np.float64], y: NDArray[np.int64], units: NDArray[np.int64], config: ShortcutConfig
) -> NDArray[np.int64]:
    """The class (n,) that a tree, fitted to the other folds, predicts for each image."""
    from sklearn.model_selection import PredefinedSplit, cross_val_predict
    from sklearn.tree import DecisionTreeClassifier

    depth = 2 + int(np.ceil(np.log2(len(np.unique(y)))))
    tree = DecisionTreeClassifier(
        max_depth=depth, min_samples_leaf=config.leaf, class_weight="balanced", random_state=0
    )
    found: NDArray[np.int64] = cross_val_predict(tree, values, y, cv=PredefinedSplit(_folds(y, units, config.folds)))
    return found


def _folds(y: NDArray[np.int64], units: NDArray[np.int64], folds: int) -> NDArray[np.int64]:
    """The fold (n,) of each image. Units of one class go to the folds in turn; a unit has the class of its first image.

    scikit-learn's StratifiedGroupKFold balances better, but takes 10 s for 50,000 units.
    """
    names, first, unit_of = np.unique(units, return_index=True, return_inverse=True)
    fold = np.empty(len(names), dtype=np.int64)
    fold[np.argsort(y[first], kind="stable")] = np.arange(len(names)) % folds
    dealt: NDArray[np.int64] = fold[unit_of]
    return dealt


def _best(kind: str, y: NDArray[np.int64], predicted: NDArray[np.int64], config: ShortcutConfig) -> Shortcut | None:
    from scipy.stats import hypergeom

    classes = np.unique(y)
    if len(classes) < 2:  # every file is under two labels
        return None
    recalls = np.array([np.mean(predicted[y == label] == label) for label in classes])
    others = np.array([np.mean(predicted[y != label] == label) for label in classes])
    at = int(np.argmax(recalls - others))
    own, hits = int(np.sum(y == classes[at])), int(np.sum((y == classes[at]) & (predicted == classes[at])))
    chance = hypergeom.sf(hits - 1, len(y), int(np.sum(predicted == classes[at])), own)
    if recalls[at] - others[at] < config.excess or chance * len(classes) * len(KINDS) > config.false_alarms:
        return None
    return Shortcut(
        kind=kind,
        label=int(classes[at]),
        recall=float(recalls[at]),
        others=float(others[at]),
        balanced=float(recalls.mean()),
        chance=1 / len(classes),
    )

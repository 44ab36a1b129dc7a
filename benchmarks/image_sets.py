"""Image sets for benchmarks, and cells of them: so many images a class, drawn by a seed; the test images stay the same.

A set is a folder of class folders, with splits above them or without. A split of its own named ``test`` (or ``val``,
where there is no ``test``) is its test set; otherwise a share of each class is set aside, by a fixed seed.
"""

from __future__ import annotations

import csv
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import tl_kit
from tl_kit.demonstration import write_digits

__all__ = ["SETS", "ImageSet", "Pools", "finetune_cell", "pools_of", "write_cell"]

Pools = dict[str, tuple[list[Path], list[Path]]]
"""Test images and all others by class."""

_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"}
_SPLITS = {"train", "val", "test"}


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """A set's folder below the data folder; ``mirrored``: a mirrored image still belongs to its class.

    ``most_test``: the most test images of a class, where the set has no split of its own. ``last_reading``: no default
    may be chosen by this set; its figures are computed once, at the end.
    """

    folder: str
    mirrored: bool = True
    most_test: int = 60
    last_reading: bool = False


SETS: dict[str, ImageSet] = {
    "clothing": ImageSet(folder="clothing"),
    "sign_digits": ImageSet(folder="sign_digits"),
    "digits": ImageSet(folder="", mirrored=False, most_test=45),
    "waste": ImageSet(folder="more/trashnet_waste"),
    "omniglot": ImageSet(folder="more/omniglot60", mirrored=False),
    "blood_cells": ImageSet(folder="more/wbc_blood_cells"),
    "aerial": ImageSet(folder="more/rsscn7_aerial"),
    "devanagari": ImageSet(folder="more/devanagari46", mirrored=False),
    "weather": ImageSet(folder="more/weather4", last_reading=True),
    "solar_cells": ImageSet(folder="more/elpv_solar_cells", last_reading=True),
    "steel": ImageSet(folder="more/neu_steel_surface", last_reading=True),
}
"""``digits`` are scikit-learn's, written as images of 64 px."""

_TEST_SHARE = 1 / 3


def pools_of(name: str, data: Path, scratch: Path) -> Pools:
    """Test images and all others by class, the same in every call. ``scratch``: where scikit-learn's digits go."""
    root = data / SETS[name].folder
    if name == "digits":
        root = scratch / "digits"
        if not root.exists():
            write_digits(root, side=64)
    found: dict[str, list[Path]] = {}
    for path in sorted(root.rglob("*")):
        if path.suffix.lower() in _SUFFIXES:
            found.setdefault(path.parent.name, []).append(path)
    if not found:
        raise SystemExit(f"no images below {root}")
    return {label: _set_aside(root, paths, SETS[name].most_test) for label, paths in found.items()}


def _set_aside(root: Path, paths: list[Path], most: int) -> tuple[list[Path], list[Path]]:
    """Test images of a class, and all others."""
    splits = {path.relative_to(root).parts[0] for path in paths} & _SPLITS
    own = "test" if "test" in splits else "val" if splits else None
    if own is not None:
        test = [path for path in paths if path.relative_to(root).parts[0] == own]
        return test, [path for path in paths if path not in set(test)]
    shuffled = [paths[i] for i in np.random.default_rng(0).permutation(len(paths))]
    count = max(1, min(most, round(len(paths) * _TEST_SHARE)))
    return shuffled[:count], shuffled[count:]


def write_cell(pools: Pools, per_class: int, seed: int, out: Path) -> None:
    """The CSV of one cell: the same test images for all, training and validation images drawn by the seed.

    A quarter as many images validate, two a class at least; a class that has fewer images gives what it has, one of
    them to validation.
    """
    with out.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split"])
        for label, (test, pool) in pools.items():
            drawn = [pool[i] for i in np.random.default_rng([seed, per_class]).permutation(len(pool))]
            val = min(max(2, per_class // 4), max(1, len(drawn) // 4))
            splits = {"test": test, "train": drawn[val : val + per_class], "val": drawn[:val]}
            for split, chosen in splits.items():
                writer.writerows([str(path.absolute()), label, split] for path in chosen)


def finetune_cell(
    name: str, table: Path, policy: str, seed: int, store: Path, *, model: str, side: int, weights: str = "auto"
) -> tl_kit.FinetuneResult:
    """A run by the defaults on a cell of the set, at ``side`` px, with its cache in ``store``; the checkpoint goes."""
    with tempfile.TemporaryDirectory() as folder:
        return tl_kit.finetune(
            tl_kit.FinetuneConfig(
                model=model,
                weights=weights,
                data=table,
                policy=policy,
                img_size=side,
                seed=seed,
                augment_options={} if policy == "head" or SETS[name].mirrored else {"flip": 0.0},
                out=Path(folder) / "run",
                cache=tl_kit.CacheConfig(directory=store),
            )
        )

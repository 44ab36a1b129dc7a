"""Faults planted in sound data sets: each is found, nothing else is, and what leaks or contradicts stops a run."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.images import encoded
from tests.data.planting import copied, photo, write_given_away, write_photos
from tests.torture.table import record
from tl_kit import FinetuneConfig, doctor, finetune
from tl_kit.config import DataConfig
from tl_kit.data.findings import BLOCKING
from tl_kit.diagnosis.shortcuts import KINDS
from tl_kit.errors import DataError, TlKitError

pytestmark = pytest.mark.torture

SPLITS, LABELS = ("train", "val", "test"), ("a", "b")
TRIES = 25
Plant = Callable[[Path, random.Random], str]
"""Spoils a data set of :func:`write_photos`; returns the name of what there is to be found."""


def _some(root: Path, split: str, label: str, rng: random.Random) -> Path:
    return rng.choice(sorted((root / split / label).glob("?.jpg")))


def _copy(root: Path, rng: random.Random, *, split: bool, label: bool, write: Callable[[Path, Path], object]) -> None:
    """One image once more, in another split, under another label, or beside itself."""
    splits, labels = rng.sample(SPLITS, 2), rng.sample(LABELS, 2)
    target = root / splits[split] / labels[label] / "copy.jpg"
    write(_some(root, splits[0], labels[0], rng), target)


def _saved_again(rng: random.Random) -> Callable[[Path, Path], object]:
    """Another size, another quality, perhaps mirrored."""
    factor, quality = rng.uniform(0.6, 1.6), rng.randint(35, 90)
    how = rng.choice(["resized", "mirrored"])

    def write(source: Path, target: Path) -> None:
        with Image.open(source) as image:
            size = (round(image.width * factor), round(image.height * factor))
            target.write_bytes(copied(image, how, size=size, quality=quality))

    return write


def _exact(code: str, *, split: bool = False, label: bool = False) -> Plant:
    def plant(root: Path, rng: random.Random) -> str:
        _copy(root, rng, split=split, label=label, write=shutil.copy)
        return code

    return plant


def _near(code: str, *, split: bool = False, label: bool = False) -> Plant:
    def plant(root: Path, rng: random.Random) -> str:
        _copy(root, rng, split=split, label=label, write=_saved_again(rng))
        return code

    return plant


def _class_missing(root: Path, rng: random.Random) -> str:
    shutil.rmtree(root / rng.choice(["val", "test"]) / rng.choice(LABELS))
    return "class-missing"


def _few_images(root: Path, rng: random.Random) -> str:
    for split, count in zip(SPLITS, rng.choice([(2, 1, 1), (1, 1, 1)]), strict=True):
        for index in range(count):
            file = root / split / "rare" / f"{index}.jpg"
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(encoded(photo(rng.randrange(10**6, 10**7)), "JPEG", quality=95))
    return "few-images"


def _near_empty(root: Path, rng: random.Random) -> str:
    noise = np.random.default_rng(rng.randrange(2**32)).normal(0, 2, (120, 160, 3))
    grain = np.clip(rng.randrange(256) + noise, 0, 255).astype(np.uint8)
    (root / "train" / "a" / "none.jpg").write_bytes(encoded(Image.fromarray(grain), "JPEG", quality=90))
    return "near-empty"


def _group_leak(root: Path, rng: random.Random) -> str:
    """The files of a person bear the person's name; one of them is in two splits."""
    person = f"p{rng.randrange(1000):03d}"
    for split in rng.sample(SPLITS, 2):
        source = _some(root, split, rng.choice(LABELS), rng)
        source.rename(source.with_name(f"{person}-{source.name}"))
    return "group-leak"


PLANTS: dict[str, Plant] = {
    "the same file across splits": _exact("split-leak", split=True),
    "the same file under two labels": _exact("label-conflict", label=True),
    "an image saved again across splits": _near("near-split-leak", split=True),
    "an image saved again under two labels": _near("near-label-conflict", label=True),
    "a class missing from a split": _class_missing,
    "a class under 5 images": _few_images,
    "a group across splits": _group_leak,
    "an image that shows nothing": _near_empty,
}
PATTERN = r"^(p\d{3})-"


def examined(root: Path) -> set[str]:
    """The doctor's findings; without those that only inform."""
    report = doctor(root, split=DataConfig(group_pattern=PATTERN))
    return {finding.code for finding in report.findings if finding.severity != "info"}


def stops(root: Path, out: Path) -> str:
    """What ``finetune`` says of it; empty where it would have gone on: the weights of this model are not here."""
    split = DataConfig(group_pattern=PATTERN)
    with pytest.raises(TlKitError) as raised:
        finetune(FinetuneConfig(model="resnet18", data=root, out=out, split=split))
    if isinstance(raised.value, DataError):
        return str(raised.value)
    assert "resnet18" in str(raised.value)
    return ""


@pytest.mark.parametrize("fault", PLANTS)
def test_planted_faults(tmp_path: Path, fault: str) -> None:
    sound, lost = write_photos(tmp_path / "sound"), []
    for seed in range(TRIES):
        root = shutil.copytree(sound, tmp_path / f"{seed}")
        code = PLANTS[fault](root, random.Random(f"{fault} {seed}"))
        codes, said = examined(root), stops(root, tmp_path / "out")
        if codes != {code}:
            lost.append(f"{seed}: found {sorted(codes)}")
        elif (code in BLOCKING) != (code in said):
            lost.append(f"{seed}: finetune said {said!r}")
        shutil.rmtree(root)
    record(f"doctor: {fault}", tries=TRIES, survived=TRIES - len(lost), lost=lost)


def test_several_faults_at_once(tmp_path: Path) -> None:
    """Four of them in one data set, in any order: all are found, and no other."""
    sound, lost = write_photos(tmp_path / "sound"), []
    mixable = [plant for fault, plant in PLANTS.items() if fault != "a class missing from a split"]
    for seed in range(TRIES):
        rng = random.Random(seed)
        root = shutil.copytree(sound, tmp_path / f"{seed}")
        planted = set()
        for plant in rng.sample(mixable, 4):
            planted.add(plant(root, rng))
            for copy in root.rglob("copy.jpg"):  # the next one shall not take its place
                copy.rename(copy.with_name(f"again {len(planted)}.jpg"))
        if not planted <= (codes := examined(root)):
            lost.append(f"{seed}: planted {sorted(planted)}, found {sorted(codes)}")
        shutil.rmtree(root)
    record("doctor: four faults at once", tries=TRIES, survived=TRIES - len(lost), lost=lost)


def test_sound_sets(tmp_path: Path) -> None:
    lost = []
    for seed in range(TRIES):
        root = write_photos(tmp_path / f"{seed}", seed=10_000 * (seed + 1))
        if codes := examined(root):
            lost.append(f"{seed}: found {sorted(codes)}")
        shutil.rmtree(root)
    record("doctor: nothing is wrong", tries=TRIES, survived=TRIES - len(lost), lost=lost)


@pytest.mark.parametrize("kind", KINDS)
def test_shortcuts(tmp_path: Path, kind: str) -> None:
    lost = []
    for seed in range(5):
        root = write_given_away(tmp_path / f"{seed}", kind, seed=1000 * seed)
        found = {finding.code for finding in doctor(root).findings if finding.code.endswith("-shortcut")}
        if found != {f"{kind}-shortcut"}:
            lost.append(f"{kind}, {seed}: found {sorted(found)}")
    record("doctor: a class told without the picture", tries=5, survived=5 - len(lost), lost=lost)

"""Near copies stay on one side of splits made here, whatever their names; what has none is split as before."""

from __future__ import annotations

import random
import shutil
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.images import encoded, write_classes
from tests.data.planting import copied, photo, write_photos
from tl_kit.config import CopiesConfig, DataConfig, DecodeConfig
from tl_kit.data import near_copies as copies
from tl_kit.data.folds import fold_manifests
from tl_kit.data.manifest import Manifest
from tl_kit.data.near_copies import link_near_copies
from tl_kit.data.scan import scan
from tl_kit.diagnosis.examine import examine
from tl_kit.errors import ConfigError

OFF = DataConfig(near_images=0)


def write_qualities(root: Path, *, photos: int = 24, seed: int = 0, versions: int = 4, classes: str = "ab") -> Path:
    """Each photo in several qualities and sizes, one of them mirrored, under a random label; named ``number_...``."""
    rng = random.Random(seed)
    for number in range(photos):
        image, label = photo(seed * 1000 + number), rng.choice(classes)
        data = [encoded(image, "JPEG", quality=90), copied(image, "mirrored"), encoded(image, "PNG")]
        data += [copied(image, "resized", size=(80 + 8 * k, 60 + 6 * k), quality=30 + 5 * k) for k in range(versions)]
        for version in range(versions):
            file = root / label / f"{number}_{rng.randrange(10**6)}_{version}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data[version])
    return root


def sides(manifest: Manifest) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for sample in manifest.samples:
        found[sample.path.name.split("_")[0]].add(sample.split)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_near_copies_are_on_one_side_and_their_number_is_said(tmp_path, seed):
    manifest = scan(write_qualities(tmp_path, seed=seed))
    assert {len(found) for found in sides(manifest).values()} == {1}
    assert "near copies (re-encoded, resized, mirrored): 96 images in 24 sets" in manifest.notes[-1]
    assert {split for found in sides(manifest).values() for split in found} == {"train", "val", "test"}
    assert max(map(len, sides(scan(tmp_path, OFF)).values())) > 1
    assert not [item for item in examine(tmp_path).findings if item.code == "near-split-leak"]


def test_copies_under_two_labels_stay_together(tmp_path):
    root = write_qualities(tmp_path, photos=30, classes="a")
    (root / "b").mkdir()
    for file in sorted((root / "a").glob("*_[23].jpg")):
        file.rename(root / "b" / file.name)
    manifest = scan(root)
    assert {len(found) for found in sides(manifest).values()} == {1}
    assert all(set(table) == {"a", "b"} and min(table.values()) > 0 for table in manifest.counts().values())


def test_names_and_order_do_not_matter(tmp_path):
    first = scan(write_qualities(tmp_path / "one"))
    for number, file in enumerate(sorted((tmp_path / "one").rglob("*.jpg"), key=lambda f: f.name[::-1])):
        target = tmp_path / "two" / {"a": "z", "b": "m"}[file.parent.name] / f"{number * 7919 % 1009}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    second = scan(tmp_path / "two")
    assert {s.digest: (s.split, s.near) for s in first.samples} == {s.digest: (s.split, s.near) for s in second.samples}


def test_without_near_copies_splits_are_as_before(tmp_path):
    for number in range(40):
        file = tmp_path / "ab"[number % 2] / f"{number}.jpg"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(encoded(photo(number), "JPEG", quality=90))
    assert scan(tmp_path) == scan(tmp_path, OFF)
    assert len(scan(tmp_path).notes) == 2


def test_folds_keep_them_together(tmp_path):
    manifest = scan(write_qualities(tmp_path))
    for fold in fold_manifests(manifest, 4, DataConfig()):
        assert {len(found) for found in sides(fold).values()} == {1}


def test_given_splits_stay_as_they_are(tmp_path):
    write_photos(tmp_path)
    (tmp_path / "test" / "a" / "copy.jpg").write_bytes(copied(photo(0), "resized"))
    manifest = scan(tmp_path)
    assert {s.path.relative_to(tmp_path).parts[0] == s.split for s in manifest.samples} == {True}
    assert all(s.near is None for s in manifest.samples)
    assert [item for item in examine(tmp_path).findings if item.code == "near-split-leak"]


def test_a_validation_split_made_beside_a_given_test_split(tmp_path):
    write_qualities(tmp_path / "train", photos=20)
    write_qualities(tmp_path / "test", photos=6, seed=9)
    found = [s for s in scan(tmp_path).samples if s.split != "test"]
    kept: dict[str, set[str]] = defaultdict(set)
    for sample in found:
        kept[sample.path.name.split("_")[0]].add(sample.split)
    assert {len(splits) for splits in kept.values()} == {1}
    assert {sample.split for sample in found} == {"train", "val"}


def film(root: Path, *, frames: int = 40) -> Path:
    """Two classes, each of one slow pan over one scene."""
    for label in (0, 1):
        scene = photo(label, width=400, height=400)
        for frame in range(frames):
            file = root / "ab"[label] / f"{frame}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            part = scene.crop((frame, frame, frame + 200, frame + 200))
            file.write_bytes(encoded(part, "JPEG", quality=90))
    return root


def test_what_would_take_most_of_a_class_is_spread_and_said(tmp_path):
    manifest = scan(film(tmp_path))
    assert manifest.counts() == scan(tmp_path, OFF).counts()
    assert "80 images look so much alike" in manifest.notes[-1]
    assert "--group-pattern" in manifest.notes[-1]


def test_a_large_set_beside_small_ones_leaves_these_together(tmp_path):
    film(tmp_path)
    for label in (0, 1):
        for number in range(10):
            for version in range(3):
                data = copied(photo(100 + 50 * label + number), "resized", size=(80 + 9 * version, 60), quality=60)
                (tmp_path / "ab"[label] / f"p{label}{number}_{version}.jpg").write_bytes(data)
    found = sides(scan(tmp_path))
    assert {len(splits) for name, splits in found.items() if name.startswith("p")} == {1}


def test_a_group_is_as_large_as_it_is_and_takes_its_near_copies_along(tmp_path):
    """The bound is on what near copies add, not on a group that the user has given."""
    write_qualities(tmp_path, photos=20, versions=1)
    for file in sorted((tmp_path / "a").iterdir())[:6]:
        file.rename(file.with_name(f"p_{file.name}"))
    image = copied(photo(int(next((tmp_path / "a").glob("p_*")).name.split("_")[1])), "resized", size=(90, 70))
    (tmp_path / "a" / "copy.jpg").write_bytes(image)
    manifest = scan(tmp_path, DataConfig(group_pattern="^p"))
    splits = {s.split for s in manifest.samples if s.path.name.startswith(("p_", "copy"))}
    assert len(splits) == 1


@pytest.mark.parametrize("count", [2, 3])
def test_where_nothing_would_be_left_to_validate_on_they_are_spread(tmp_path, count):
    for label in (0, 1):
        for version in range(count):
            file = tmp_path / "ab"[label] / f"{version}.jpg"
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(copied(photo(label), "resized", size=(90 + 10 * version, 70)))
    manifest = scan(tmp_path)
    assert manifest.split("val")
    assert "no validation images" in manifest.notes[-1]


def test_beyond_the_limit_none_is_compared_and_that_is_said(tmp_path, monkeypatch):
    write_qualities(tmp_path, photos=10)
    monkeypatch.setattr(copies, "_grey", lambda *_: pytest.fail("decoded"))
    manifest = scan(tmp_path, DataConfig(near_images=39))
    assert manifest.notes[-1].endswith("were not looked for among 40 images (at most 39 are compared)")
    assert scan(tmp_path, OFF).samples == manifest.samples
    assert not [note for note in scan(tmp_path, OFF).notes if "near copies" in note]


def test_a_negative_limit(tmp_path):
    with pytest.raises(ConfigError, match="near_images -1"):
        scan(write_qualities(tmp_path, photos=4), DataConfig(near_images=-1))


def test_where_too_many_pairs_are_proposed_none_is_compared_and_that_is_said(tmp_path):
    manifest = scan(write_qualities(tmp_path, photos=10), OFF)
    found, notes = link_near_copies(
        manifest.samples, config=DataConfig(), decode=DecodeConfig(), limits=CopiesConfig(proposed=1)
    )
    assert found == list(manifest.samples)
    assert "too many of them are alike" in notes[0]


def test_plain_noise_blank_and_broken_images_are_like_nothing(tmp_path):
    write_classes(tmp_path, {"a": 12, "b": 12})
    for number in range(6):
        grain = np.random.default_rng(number).integers(118, 122, (60, 80, 3), dtype=np.uint8)
        (tmp_path / "a" / f"blank{number}.png").write_bytes(encoded(Image.fromarray(grain), "PNG"))
        cut = encoded(photo(1), "PNG")
        (tmp_path / "b" / f"cut{number}.png").write_bytes(cut[: len(cut) // 2 + number])
    manifest = scan(tmp_path)
    assert all(sample.near is None for sample in manifest.samples)
    assert manifest.samples == scan(tmp_path, OFF).samples

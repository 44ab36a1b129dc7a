"""Every form of a data set: the same images give the same digests, splits and weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import datasets
import fsspec
import pytest

from tests.data.packing import (
    FORMS,
    class_folders,
    classes_of,
    images_of,
    pairs,
    structs,
    tar,
    zipped,
)
from tests.data.scans import error, row_by_row
from tests.helpers import quick, same, weights, write_images
from tl_kit.config import CacheConfig, DataConfig
from tl_kit.data.manifest import Manifest
from tl_kit.data.scan import scan
from tl_kit.errors import DataError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of its class names are not ASCII, and the names of its files hold groups."""
    folder = write_images(tmp_path_factory.mktemp("forms") / "imgs", ("red", "green"), images=10)
    (folder / "green").rename(folder / "grün")
    for file in folder.glob("*/*"):
        number = int(file.stem.rpartition("-")[2])
        file.rename(file.with_name(f"p{number // 2}-{file.parent.name[0]}{number}.png"))
    return folder


@pytest.fixture(scope="module")
def whole(folder: Path) -> Manifest:
    return scan(folder)


@pytest.mark.parametrize("name", FORMS)
def test_each_form_gives_the_same_splits(name: str, folder: Path, whole: Manifest) -> None:
    manifest = scan(FORMS[name](folder.parent / name, folder))
    assert row_by_row(manifest) == row_by_row(whole)
    assert manifest.content_hash() == whole.content_hash()
    assert manifest.exclusions == ()
    assert manifest.faults == ()
    assert scan(folder.parent / name).samples == manifest.samples, "the copy is found again"


@pytest.mark.parametrize("name", ["set.zip", "structs.parquet", "saved", "semicolons.csv"])
def test_groups_are_read_from_the_names_of_files(name: str, folder: Path, tmp_path: Path) -> None:
    config = DataConfig(group_pattern="^p[0-9]")
    place = folder.parent / name
    manifest = scan(place if place.exists() else FORMS[name](place, folder), config)
    assert row_by_row(manifest) == row_by_row(scan(folder, config))
    assert len({sample.group for sample in manifest.samples}) == 5


@pytest.mark.usefixtures("one_thread")
def test_weights_are_the_same_bit_for_bit(folder: Path, tmp_path: Path) -> None:
    """Without the cache of features, which goes by digests: each form is decoded and trained on."""
    found = []
    for name in ("", "set.zip", "binaries.parquet", "shard.tar"):
        place = folder.parent / name if name else folder
        data = place if place.exists() else FORMS[name](place, folder)
        quick(data, tmp_path / f"out-{name}", epochs=1, cache=CacheConfig(size_gb=0))
        found.append(weights(tmp_path / f"out-{name}"))
    assert all(same(found[0], other) for other in found[1:])


def split_folders(folder: Path, root: Path) -> Path:
    for number, (name, file) in enumerate(images_of(folder)):
        place = root / ("train", "train", "train", "val", "test")[number % 5] / name / file.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, place)
    return root


def test_splits_stand_in_the_names_of_shards_and_files(folder: Path, tmp_path: Path) -> None:
    root = split_folders(folder, tmp_path / "splits")
    classes = classes_of(root / "train")
    expected = row_by_row(scan(root))
    (tmp_path / "shards").mkdir()
    (tmp_path / "parquet" / "data").mkdir(parents=True)
    (tmp_path / "shards" / "classes.txt").write_text("\n".join(classes), encoding="utf-8")
    for split, other in (("train", "train"), ("val", "validation"), ("test", "test")):
        members = pairs(root / split, lambda name: ("cls", str(classes.index(name))))
        half = len(members) // 4 * 2
        for number, part in enumerate((members[:half], members[half:])):
            tar(tmp_path / "shards" / f"imgs-{split}-{number:06d}.tar", part)
        structs(tmp_path / "parquet" / "data" / f"{other}-00000-of-00001.parquet", root / split)
    dictionary = {
        other: datasets.Dataset.from_parquet(str(tmp_path / f"parquet/data/{other}-00000-of-00001.parquet"))
        for other in ("train", "validation", "test")
    }
    datasets.DatasetDict(dictionary).save_to_disk(str(tmp_path / "saved"))
    for name in ("shards", "parquet", "saved"):
        assert row_by_row(scan(tmp_path / name)) == expected, name
    tar(tmp_path / "shards" / "more-000000.tar", members)
    assert "some of its shards name a split, others none" in error(tmp_path / "shards")


def test_a_data_set_of_the_hub(folder: Path, tmp_path: Path, whole: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its address; the library reads the same files from a folder here, as it does without a network."""
    (tmp_path / "someone" / "fruit").mkdir(parents=True)
    structs(tmp_path / "someone" / "fruit" / "train.parquet", folder)
    monkeypatch.chdir(tmp_path)
    for address in ("hf:someone/fruit", "hf://datasets/someone/fruit"):
        manifest = scan(Path(address))
        assert row_by_row(manifest)
        assert {sample.digest for sample in manifest.samples} == {sample.digest for sample in whole.samples}
        assert manifest.classes == whole.classes
    with pytest.raises(DataError, match="hf:someone/none: cannot be had from the hub"):
        scan(Path("hf:someone/none"))


@pytest.fixture
def memory() -> fsspec.AbstractFileSystem:
    store = fsspec.filesystem("memory")
    store.store.clear()
    return store


def test_addresses(folder: Path, memory: fsspec.AbstractFileSystem, whole: Manifest, tmp_path: Path) -> None:
    memory.put(str(folder), "/bucket/imgs", recursive=True)
    memory.put(str(zipped(tmp_path / "x.zip", class_folders(folder))), "/bucket/x.zip")
    for address in ("memory://bucket/imgs", "memory://bucket/x.zip"):
        manifest = scan(Path(address))
        assert row_by_row(manifest) == row_by_row(whole)
        assert str(manifest.root) == address.replace("//", "/")
    with pytest.raises(DataError, match="memory://bucket/none: cannot be read"):
        scan(Path("memory://bucket/none"))
    with pytest.raises(DataError, match=r"there is no reader of nowhere:// addresses"):
        scan(Path("nowhere://bucket/none"))
    memory.pipe("/bucket/imgs/red/new.png", b"no image")
    manifest = scan(Path("memory://bucket/imgs"))
    assert [(str(each.path), each.reason) for each in manifest.exclusions] == [
        ("memory:/bucket/imgs/red/new.png", "not an image")
    ]


def test_a_table_beside_its_images_is_read_from_a_folder_and_an_archive(folder: Path, tmp_path: Path) -> None:
    rows = "".join(f"{file.stem},{name}\n" for name, file in images_of(folder))
    members = [(f"comp/train_images/{file.name}", file.read_bytes()) for _, file in images_of(folder)]
    zipped(tmp_path / "comp.zip", [("comp/train.csv", f"id,target\n{rows}".encode()), *members])
    shutil.unpack_archive(str(tmp_path / "comp.zip"), tmp_path)
    for place in (tmp_path / "comp", tmp_path / "comp.zip"):
        manifest = scan(place)
        assert row_by_row(manifest) == row_by_row(scan(folder))
        assert "is no set of class folders: train.csv in it is read" in manifest.notes[0]
        assert str(tmp_path) in manifest.notes[0]
    (tmp_path / "comp" / "other.csv").write_text(f"id,target\n{rows}")
    assert "holds several tables of images, 'other.csv', 'train.csv': name one" in error(tmp_path / "comp")

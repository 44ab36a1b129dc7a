"""Runs on data as users have them: their own output beside it, two forms of Unicode, near copies."""

from __future__ import annotations

import json
import shutil
import unicodedata
from pathlib import Path

import pytest

from tests.data.test_near_copies import sides, write_qualities
from tests.helpers import Listener, quick, quick_config, write_images
from tl_kit import evaluate
from tl_kit.config import DataConfig
from tl_kit.data.scan import scan
from tl_kit.inference.made_splits import split_config
from tl_kit.inference.predictor import load
from tl_kit.series.cross_validate import cross_validate
from tl_kit.storage.checkpoint import META, load_checkpoint

NFC, NFD = (unicodedata.normalize(form, "été") for form in ("NFC", "NFD"))
HEAD = {"policy": "head", "epochs": None}


def meta_of(folder: Path) -> dict:
    return json.loads((folder / META).read_text())


def test_a_run_beside_its_own_output_sees_the_same_images(tmp_path, monkeypatch):
    monkeypatch.chdir(write_images(tmp_path))
    listener = Listener()
    runs = [quick(Path(), None, plot=True, epochs=1, reporter=listener) for _ in range(2)]
    assert [run.classes for run in runs] == [("blue", "green", "red")] * 2
    assert (tmp_path / runs[0].checkpoint / "curves.png").is_file()
    assert meta_of(Path(runs[0].checkpoint))["data"]["content"] == meta_of(Path(runs[1].checkpoint))["data"]["content"]
    (line,) = [text for text in listener.messages if "written by tl-kit" in text]
    assert line == f"left out: {tmp_path / 'ckpts'}: written by tl-kit itself"
    quick(Path(), Path("third"), epochs=1, strict=True)


def test_a_network_of_one_form_of_unicode_is_scored_on_the_other(tmp_path):
    for split, form, seed in (("train", NFC, 0), ("val", NFD, 1), ("test", NFD, 2)):
        root = write_images(tmp_path / "imgs" / split, ("red", "green"), images=6, seed=seed)
        (root / "red").rename(root / form)
    result = quick(tmp_path / "imgs", tmp_path / "run", **HEAD)
    assert result.classes == ("green", NFC)
    meta = meta_of(tmp_path / "run")
    meta["classes"] = ["green", NFD]  # as an earlier version wrote it on a Mac
    (tmp_path / "run" / META).write_text(json.dumps(meta))
    assert load_checkpoint(tmp_path / "run").classes == ("green", NFC)
    again = evaluate(tmp_path / "run", tmp_path / "imgs")
    assert result.test is not None
    assert again.metrics["accuracy"] == result.test["accuracy"]
    assert NFC in again.per_class
    meta["classes"] = [NFC, NFD]
    (tmp_path / "run" / META).write_text(json.dumps(meta))
    assert load_checkpoint(tmp_path / "run").classes == (NFC, NFD)


@pytest.fixture(scope="module")
def copied_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_qualities(tmp_path_factory.mktemp("data") / "imgs", photos=16, versions=3)


def test_evaluate_makes_the_same_splits(copied_photos, tmp_path):
    listener = Listener()
    result = quick(copied_photos, tmp_path / "run", reporter=listener, **HEAD)
    assert any("48 images in 16 sets" in text for text in listener.messages)
    assert meta_of(tmp_path / "run")["config"]["split"]["near_images"] == DataConfig.near_images
    said = Listener()
    found = evaluate(tmp_path / "run", copied_photos, reporter=said)
    assert found.split == "test"
    assert result.test is not None
    assert found.metrics["accuracy"] == result.test["accuracy"]
    assert not [text for text in said.messages if text.startswith("warning")]


def test_a_checkpoint_from_before_has_its_own_splits(copied_photos, tmp_path):
    before = DataConfig(near_images=0)
    quick(copied_photos, tmp_path / "run", split=before, **HEAD)
    meta = meta_of(tmp_path / "run")
    del meta["config"]["split"]["near_images"]
    (tmp_path / "run" / META).write_text(json.dumps(meta))
    assert split_config(load(tmp_path / "run")) == before
    said = Listener()
    evaluate(tmp_path / "run", copied_photos, reporter=said)
    assert not [text for text in said.messages if text.startswith("warning")]


def test_folds_of_given_splits_keep_near_copies_together(copied_photos, tmp_path):
    for number, file in enumerate(sorted(copied_photos.rglob("*.jpg"))):
        target = tmp_path / "imgs" / ("train", "val")[number % 2] / file.parent.name / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    assert max(map(len, sides(scan(tmp_path / "imgs")).values())) == 2
    said = Listener()
    config = quick_config(tmp_path / "imgs", tmp_path / "folds", **HEAD)
    result = cross_validate(config, folds=2, reporter=said)
    assert any("48 images in 16 sets" in text for text in said.messages)
    folds: dict[str, set[int]] = {}
    for path, fold in zip(result.predictions.paths, result.predictions.folds, strict=True):
        folds.setdefault(Path(path).name.split("_")[0], set()).add(int(fold))
    assert {len(found) for found in folds.values()} == {1}


def test_what_was_not_looked_for_in_given_splits_is_said(tmp_path):
    for seed, split in enumerate(("train", "val")):
        write_images(tmp_path / "imgs" / split, ("red", "green"), images=4, seed=seed)
    said = Listener()
    quick(tmp_path / "imgs", tmp_path / "run", reporter=said, **HEAD)
    (line,) = [text for text in said.messages if "near copies" in text]
    assert line.endswith(f"given splits were not looked for: tlkit doctor --data {tmp_path / 'imgs'} does")

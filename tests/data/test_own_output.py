"""Folders that tl-kit wrote are no data, wherever they lie; a user's are, whatever their name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.data.images import write_classes, write_image
from tests.data.scans import error, reasons
from tl_kit.data.folders import list_files
from tl_kit.data.manifest import OWN
from tl_kit.data.own_output import _BESIDE, _STATE, _STATE_ENDINGS, MARKS
from tl_kit.data.scan import scan
from tl_kit.diagnosis.examine import examine
from tl_kit.series import cross_validate as cross_validation
from tl_kit.storage import checkpoint
from tl_kit.storage import ensemble_folder as ensembling
from tl_kit.storage import saved_states as states
from tl_kit.storage.feature_store import FeatureStore


def run(folder: Path, mark: str = "tlkit.json") -> Path:
    write_image(folder / "curves.png", 900)
    (folder / mark).write_text("{}")
    return folder


def test_the_names_are_those_that_are_written():
    assert {checkpoint.META, ensembling.MANIFEST} <= set(MARKS)
    beside = {checkpoint.FOLDS, checkpoint.MEMBERS, cross_validation.PREDICTIONS, cross_validation.SUSPECTS}
    assert {name for name in beside if not name.endswith(".json")} | {ensembling.PICTURE} == _BESIDE
    assert (states.STATE, set(_STATE_ENDINGS)) == (_STATE, {states._TENSORS, states._CHECK})


@pytest.mark.parametrize("mark", MARKS)
@pytest.mark.parametrize("place", ["best", "ckpts/net-1", "a/runs/net-1", "out/deep/net-1"])
def test_runs_and_folders_of_runs_are_passed_over_at_any_depth(tmp_path, mark, place):
    write_classes(tmp_path, {"a": 4, "b": 4})
    clean = scan(tmp_path)
    run(tmp_path / place, mark)
    manifest = scan(tmp_path)
    assert manifest.samples == clean.samples
    top = {"best": "best", "ckpts/net-1": "ckpts", "a/runs/net-1": "a/runs", "out/deep/net-1": "out"}[place]
    assert reasons(manifest) == {top: OWN}
    assert not [file for file in list_files(tmp_path)[0] if file.name == "curves.png"]


def test_the_doctor_notes_it_and_asks_for_nothing(tmp_path):
    write_classes(tmp_path, {"a": 4, "b": 4})
    run(tmp_path / "ckpts" / "net-1")
    found = [item for item in examine(tmp_path).findings if OWN in item.message]
    assert [(item.severity, item.remedy, item.paths) for item in found] == [("info", "", (tmp_path / "ckpts",))]


def test_beside_split_folders(tmp_path):
    write_classes(tmp_path / "train", {"a": 4, "b": 4})
    write_classes(tmp_path / "val", {"a": 4, "b": 4}, seed=1)
    run(tmp_path / "ckpts" / "net-1")
    run(tmp_path / "train" / "ckpts" / "net-1")
    manifest = scan(tmp_path)
    assert manifest.classes == ("a", "b")
    assert reasons(manifest) == {"ckpts": OWN, "train/ckpts": OWN}


def test_folds_members_and_what_is_unfinished(tmp_path):
    write_classes(tmp_path, {"a": 4, "b": 4})
    for name, beside in (("f1", "folds.json"), ("m1", "members.json")):
        run(tmp_path / name / "fold-1")
        (tmp_path / name / beside).write_text(json.dumps({}))
    (tmp_path / "f1" / "suspects.csv").write_text("path,label\n")
    (tmp_path / "f1" / "out_of_fold.csv").write_text("path,label\n")
    (tmp_path / "ckpts" / "net-2" / "state").mkdir(parents=True)
    (tmp_path / "ckpts" / "net-2" / "state" / "000001.json").write_text("{}")
    (tmp_path / "ckpts" / "net-2" / ".lock").write_text("")
    (tmp_path / "ckpts" / "net-3").mkdir()
    run(tmp_path / "torn" / "members" / "01-net")
    write_image(tmp_path / "torn" / "receipt.png", 901)
    store = FeatureStore(tmp_path / "cache", "key", limit=10**9)
    store.add(["a"], iter([torch.zeros(1, 3)]))
    assert reasons(scan(tmp_path)) == dict.fromkeys(("f1", "m1", "ckpts", "torn", "cache"), OWN)


@pytest.mark.parametrize("name", ["ckpts", "ensembles", "members", "state", "fold-1"])
def test_a_class_of_photos_may_have_any_name(tmp_path, name):
    write_classes(tmp_path, {name: 4, "b": 4})
    run(tmp_path / name / "net-1")
    manifest = scan(tmp_path)
    assert manifest.classes == ("b", name)
    assert reasons(manifest) == {f"{name}/net-1": OWN}


@pytest.mark.parametrize(("depth", "reason"), [(7, OWN), (9, "class folder without images")])
def test_there_is_an_end_to_looking_for_runs(tmp_path, depth, reason):
    write_classes(tmp_path, {"a": 4, "b": 4})
    run(tmp_path.joinpath("x", *"y" * depth))
    assert reasons(scan(tmp_path)).get("x") == reason
    assert scan(tmp_path).classes == ("a", "b")


def test_files_of_the_same_names_without_runs_are_a_users(tmp_path):
    write_classes(tmp_path, {"a": 4, "b": 4})
    for name in ("folds.json", "members.json", "suspects.csv"):
        (tmp_path / "a" / name).write_text("{}")
    write_image(tmp_path / "c" / "receipt.png", 5)
    write_image(tmp_path / "d" / "state" / "x.png", 6)
    assert scan(tmp_path).classes == ("a", "b", "c", "d")


def test_the_folder_that_is_named_is_read_though_it_is_a_run(tmp_path):
    write_classes(tmp_path, {"a": 4, "b": 4})
    (tmp_path / "tlkit.json").write_text("{}")
    assert len(scan(tmp_path).samples) == 8
    shutil.rmtree(tmp_path / "a")
    shutil.rmtree(tmp_path / "b")
    run(tmp_path / "ckpts" / "net-1")
    (tmp_path / "tlkit.json").unlink()
    assert "nothing but what tl-kit wrote ('ckpts')" in error(tmp_path)

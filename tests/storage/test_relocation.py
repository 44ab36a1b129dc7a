"""``--resume`` from another folder, and after run and images were moved: the files of the run are found, or named."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import Listener, interrupt, quick, quick_config, same, weights, write_images
from tests.killing import EVERY_STEP, Killer, killing
from tl_kit import MemberRuns, cross_validate, finetune_members, resume
from tl_kit.combining.fitted_rule import FittedRule
from tl_kit.config import CacheConfig, CropConfig, DistillConfig
from tl_kit.errors import CheckpointError, DataError
from tl_kit.series import series
from tl_kit.storage.ensemble_folder import write_ensemble
from tl_kit.storage.relocation import birthplace, relocated


@pytest.fixture(scope="module")
def began(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images, pretrained weights, and a run that was killed; all its options are relative paths."""
    root = tmp_path_factory.mktemp("began")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        write_images(Path("imgs"), images=6)
        quick(Path("imgs"), Path("start"), epochs=1)
        options = {"weights": "start", "cache": CacheConfig(directory=Path("cache")), "epochs": 2, "save": EVERY_STEP}
        quick(Path("imgs"), Path("whole"), **options)
        killer = Killer(Path("run"), 2)
        with killing(killer):
            quick(Path("imgs"), Path("run"), **options)
    return root


def elsewhere(root: Path, away: Path) -> Path:
    away.mkdir()
    os.chdir(away)
    return root


def moved(root: Path, away: Path) -> Path:
    return Path(shutil.move(root, root.with_name("moved")))


def moved_and_away(root: Path, away: Path) -> Path:
    """Where other images have the name of those of the run."""
    away.mkdir()
    os.chdir(away)
    write_images(away / "imgs", ("red", "grey"), images=3, seed=5)
    return moved(root, away)


def alone(root: Path, away: Path) -> Path:
    """The run is moved, its images stay."""
    os.chdir(Path(shutil.copytree(root / "whole", away)))
    (root / "run").rename(away / "run")
    return away


def of_an_earlier_version(root: Path, away: Path) -> Path:
    meta = json.loads((root / "run" / "tlkit.json").read_text())
    del meta["resume"]["born"]
    (root / "run" / "tlkit.json").write_text(json.dumps(meta))
    return elsewhere(root, away)


@pytest.mark.parametrize("change", [elsewhere, moved, moved_and_away, alone, of_an_earlier_version])
def test_the_run_goes_on(
    change: Callable[[Path, Path], Path], began: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(shutil.copytree(began, tmp_path / "began"))
    meta = json.loads((root / "run" / "tlkit.json").read_text())
    assert meta["resume"]["born"] == {"from": str(began), "run": str(began / "run")}
    meta["resume"]["born"] = {"from": str(root), "run": str(root / "run")}  # as if it had begun in the copy
    (root / "run" / "tlkit.json").write_text(json.dumps(meta))
    monkeypatch.chdir(root)
    run = change(root, tmp_path / "away") / "run"
    listener = Listener()
    result = resume(run, reporter=listener)
    assert result is not None
    assert same(weights(run), weights(began / "whole"))
    assert any("taken up in epoch" in message for message in listener.messages)
    if change is not moved:
        assert any(re.match("images: /.*imgs$", message) for message in listener.messages)


def test_from_where_it_began_nothing_changes(began: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(began)
    config = quick_config(Path("imgs"), Path("run"), weights="start", distill=DistillConfig(teacher=Path("start")))
    born = birthplace(Path("run"))
    assert relocated(config, born, Path("run"), Listener()) == config
    monkeypatch.chdir(tmp_path)
    found = relocated(config, born, began / "run", Listener())
    assert (found.data, found.weights) == (began / "imgs", str(began / "start"))
    assert found.distill is not None
    assert found.distill.teacher == began / "start"
    for odd in (None, 3, [], {"from": 3}, {"from": "a\0b"}):  # by another hand
        assert relocated(config, odd, began / "run", Listener()).data in (began / "imgs", Path("imgs"))


def test_images_that_are_gone_are_named_with_the_places(
    began: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(began / "run", tmp_path / "b" / "run"))
    meta = json.loads((run / "tlkit.json").read_text())
    meta["resume"]["born"] = {"from": "/was/here", "run": "/was/here/run"}
    (run / "tlkit.json").write_text(json.dumps(meta))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        DataError, match=f"the images of the run are gone.*{tmp_path}/b/imgs, /was/here/imgs, {tmp_path}/imgs"
    ):
        resume(run)
    assert list((run / "state").glob("*.json")), "and nothing is lost"


def test_a_cross_validation_goes_on_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    write_images(home / "imgs", images=6)
    (tmp_path / "away").mkdir()
    monkeypatch.chdir(home)
    config = quick_config(Path("imgs"), Path("cv"), epochs=1)
    with monkeypatch.context() as patch:
        interrupt(patch, at=1)
        with pytest.raises(KeyboardInterrupt):
            cross_validate(config, folds=2)
    monkeypatch.chdir(tmp_path / "away")
    with pytest.raises(CheckpointError, match=f"is one of the folds in {home / 'cv'}; give that folder"):
        resume(home / "cv" / "fold-1")
    result = resume(home / "cv")
    assert result is not None
    assert (home / "cv" / "folds.json").is_file()


def test_members_go_on_from_elsewhere_after_they_were_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record of the finished one names its first place, where nothing is any more."""
    home = tmp_path / "home"
    write_images(home / "imgs", images=6)
    monkeypatch.chdir(home)
    config = quick_config(Path("imgs"), Path("members"), epochs=1)
    original, calls = series.finetune_on, itertools.count()

    def stopping(*args: Any, **options: Any) -> Any:
        if next(calls) == 1:
            raise KeyboardInterrupt
        return original(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(series, "finetune_on", stopping)
        with pytest.raises(KeyboardInterrupt):
            finetune_members(config, members=2)
    monkeypatch.chdir(tmp_path)
    moved = Path(shutil.move(home, tmp_path / "moved"))
    result = resume(moved / "members")
    assert isinstance(result, MemberRuns)
    assert result.copies == ()
    assert (moved / "members" / "members.json").is_file()


def test_what_is_no_run_is_told_apart(began: Path, tmp_path: Path) -> None:
    ensemble = tmp_path / "ensemble"
    ensemble.mkdir()
    classes = ("blue", "green", "red")
    write_ensemble(ensemble, [began / "whole"] * 2, classes=classes, rule=FittedRule(), crops=CropConfig())
    run = Path(shutil.copytree(began / "run", tmp_path / "runs" / "run"))
    for folder, message in (
        (ensemble, "is an ensemble, which is made in one go"),
        (tmp_path / "runs", f"holds no run itself but 1 below it; give one of them, such as {run}"),
        (run / "tlkit.json", f"is a part of a run; give its folder, {run}"),
        (run / "state", f"is a part of a run; give its folder, {run}"),
        (began / "imgs" / "red" / "0-0.png", "is a file"),
        (tmp_path / "nothing", "no such folder"),
        (began / "imgs", "holds no run"),
    ):
        with pytest.raises(CheckpointError, match=f"^--resume {folder}: {message}"):
            resume(folder)

"""A run that is killed and taken up again ends with the weights of one that was not, to the last bit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import NEARLY_SQUARE, Listener, quick, quick_config, write_images
from tests.killing import EVERY_STEP, Copies, Killer, assert_the_same, digest, killing, meta, rows
from tl_kit import FinetuneConfig, FinetuneResult, SaveConfig, TlKitError, cross_validate, resume
from tl_kit.config import CacheConfig, LoopConfig, RangeTestConfig, RegularizationConfig
from tl_kit.data.scan import scan
from tl_kit.errors import CheckpointError, DataError, WeightsError
from tl_kit.series.records import SeriesRecords
from tl_kit.storage.lock import FolderLock
from tl_kit.storage.unfinished import is_unfinished

DROPPED = RegularizationConfig(dropout=0.3, drop_connect=0.2, l2=1e-3, label_smoothing=0.1, ema=0.9)
PLATEAU = {"schedule": "plateau", "schedule_options": ("patience=0",), "patience": 1, "epochs": 6}

# What is particular about a run -> its options. Each has something in its state that the others do not have.
RUNS: dict[str, dict[str, Any]] = {
    "full": {"augment": "strong"},
    "full, dropped weights and activations, EMA, AdamW": {"optimizer": "adamw", "regularization": DROPPED},
    "full, mixup and cutmix": {"regularization": RegularizationConfig(mixup=0.4, cutmix=1.0)},
    "full, balanced sampler": {"balance": "sampler"},
    "full, range test": {"lr": "auto", "range_test": RangeTestConfig(steps=8)},
    "full, plateau and patience": PLATEAU,
    "full, layer decay, Kron": {"optimizer": "kron", "loop": LoopConfig(warmup_epochs=0.0, layer_decay=0.7)},
    "full, second order": {"optimizer": "adahessian", "lr": 0.01},
    "full, batches of one": {"batch_size": 1, "epochs": 1, "img_size": 64},
    "head by gradient": {"policy": "head", "regularization": RegularizationConfig(dropout=0.4)},
    "last:2, cached views": {"policy": "last:2", "epochs": 3},
    "last:2, no cache": {"policy": "last:2", "cache": CacheConfig(size_gb=0)},
    "lp-ft": {"policy": "lp-ft"},
    "gradual": {"policy": "gradual", "epochs": 5},
    "gradual:2, EMA": {"policy": "gradual:2", "epochs": 5, "regularization": RegularizationConfig(ema=0.9)},
    "auto": {"policy": "auto"},
}
LAST = ("full", "head by gradient", "last:2, cached views", "lp-ft", "gradual", "auto")
"""Those that are also taken up after their last epoch: what follows it depends on the policy."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), images=9, size=NEARLY_SQUARE)


def train(data: Path, out: Path, options: Mapping[str, Any], *, save: SaveConfig = EVERY_STEP) -> FinetuneResult:
    settings = {"epochs": 2, "cache": CacheConfig(directory=data.parent / "cache"), **options}
    return quick(data, out, save=save, **settings)


def status(folder: Path) -> str:
    found: str = json.loads((folder / "tlkit.json").read_text())["status"]
    return found


def kill(data: Path, out: Path, options: Mapping[str, Any], at: int, *, save: SaveConfig = EVERY_STEP) -> None:
    """A run that is killed at the n-th of its steps and ends of epochs."""
    killer = Killer(out, at)
    with killing(killer):
        train(data, out, options, save=save)
    assert killer.seen == at
    assert status(out) == "running"


@pytest.mark.parametrize("name", RUNS)
def test_a_killed_run_ends_as_if_it_had_not_been(name: str, data: Path, tmp_path: Path) -> None:
    """Within an epoch; of each policy also where the last is over but not what follows it.

    The others are left to the torture.
    """
    out = tmp_path / "run"
    copies = Copies(out)
    with killing(copies):
        train(data, out, RUNS[name])
    whole = out.rename(tmp_path / "whole")
    for at in (copies.seen // 2, copies.seen) if name in LAST else (copies.seen // 2,):
        assert status(copies.restore(at)) == "running"
        resume(out)
        assert_the_same(out, whole)


def test_a_phase_that_patience_has_spared_a_run_is_not_entered_when_it_is_taken_up(data: Path, tmp_path: Path) -> None:
    """Nothing of gradual's second phase is computed or reported: no epoch of it ever came."""
    options = {"policy": "gradual:2", "epochs": 6, "schedule": "constant", "lr": 50.0, "patience": 2}
    copies = Copies(tmp_path / "run")
    with killing(copies):
        finished = train(data, tmp_path / "run", options)
    assert finished.epochs == 2, "no epoch is better than the fitted head"
    again = resume(copies.restore(copies.seen))
    assert isinstance(again, FinetuneResult)
    assert again.trainable_parameters == finished.trainable_parameters
    assert again.audit == finished.audit


@pytest.fixture(scope="module")
def copies(data: Path) -> Copies:
    """Of the run that ``whole`` is; nine of them: two steps and the end of each of three epochs."""
    found = Copies(data.parent / "run")
    with killing(found):
        train(data, found.out, WHOLE)
    assert found.seen == 9
    shutil.copytree(found.out, data.parent / "whole")
    return found


@pytest.fixture(scope="module")
def whole(copies: Copies) -> Path:
    return copies.out.with_name("whole")


WHOLE = {"optimizer": "adamw", "regularization": DROPPED, "epochs": 3}


def test_killed_at_every_step_it_ends_as_if_it_had_not_been(data: Path, whole: Path, tmp_path: Path) -> None:
    """One run, killed at its first step, taken up and killed at the next, and so on to the end."""
    out = tmp_path / "run"
    kill(data, out, WHOLE, 1)
    for _ in range(8):
        killer = Killer(out, at=1)
        with killing(killer):
            resume(out)
        assert killer.seen == 1
    with killing(killer):
        resume(out)
    assert killer.seen == 1, "there is no tenth time"
    assert_the_same(out, whole)


def test_what_was_done_since_the_last_save_is_done_again(copies: Copies, whole: Path, tmp_path: Path) -> None:
    """Saved after the second step alone, killed at the end: epochs and their best weights are found once more."""
    shutil.copytree(copies.restore(2) / "state", tmp_path / "state")
    out = copies.restore(9)
    shutil.rmtree(out / "state")
    (tmp_path / "state").rename(out / "state")
    resume(out)
    assert_the_same(out, whole)


def test_killed_before_the_first_save_it_starts_over(data: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    kill(data, out, WHOLE, 5, save=SaveConfig(every=0))
    assert not (out / "state").exists()
    listener = Listener()
    resume(out, reporter=listener)
    assert any("starts over" in message for message in listener.messages)
    assert_the_same(out, whole)


def damage(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("torn", [False, True])
def test_a_damaged_state_gives_way_to_the_one_before(torn: bool, copies: Copies, whole: Path) -> None:
    out = copies.restore(7)
    older, newest = sorted((out / "state").glob("*.pt"))
    if torn:
        newest.write_bytes(newest.read_bytes()[:1000])
    else:
        damage(newest)
    listener = Listener()
    resume(out, reporter=listener)
    assert [m for m in listener.messages if str(newest) in m and "the state before it is used" in m]
    assert not any(str(older) in message for message in listener.messages)
    assert_the_same(out, whole)


def test_without_a_state_that_is_whole_one_line_says_what_to_do(copies: Copies, whole: Path) -> None:
    out = copies.restore(7)
    for file in (out / "state").glob("*.pt"):
        damage(file)
    with pytest.raises(CheckpointError, match=r"damaged .*remove .*state, and --resume starts the run over$"):
        resume(out)
    shutil.rmtree(out / "state")
    resume(out)
    assert_the_same(out, whole)


def test_a_finished_run_is_left_alone(whole: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.iterdir()}
    listener = Listener()
    assert resume(whole, reporter=listener) is None
    assert listener.messages == [f"{whole}: the run is finished; there is nothing to resume"]
    assert {path: path.stat().st_mtime_ns for path in whole.iterdir()} == before


def test_other_images_and_other_weights_are_refused(data: Path, whole: Path, tmp_path: Path) -> None:
    images = Path(shutil.copytree(data, tmp_path / "images"))
    start = Path(shutil.copytree(whole, tmp_path / "start"))
    kill(images, tmp_path / "run", {"weights": str(start)}, 3)
    train(data, tmp_path / "other", {"seed": 5})
    shutil.copy(tmp_path / "other" / "model.safetensors", start)
    with pytest.raises(WeightsError, match="not the weights"):
        resume(tmp_path / "run")
    shutil.copy(whole / "model.safetensors", start)
    write_images(images, ("red",), images=1, seed=9)
    with pytest.raises(DataError, match=r"images: not the images that the run in .*run began with"):
        resume(tmp_path / "run")
    assert (tmp_path / "run" / "state").is_dir()
    next((images / "red").glob("9-*")).unlink()
    resume(tmp_path / "run")
    train(data, tmp_path / "whole", {"weights": str(start)})
    assert digest(tmp_path / "run") == digest(tmp_path / "whole")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"status": "running", "config": {"model": "x", "bomb": 1}}'])
def test_a_folder_that_holds_no_run_is_refused_in_a_line(content: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no run"):
        resume(tmp_path)
    (tmp_path / "tlkit.json").write_text(content)
    if content == "{}":
        assert resume(tmp_path) is None  # written by hand; there is nothing that could go on
        return
    with pytest.raises(CheckpointError, match=r"tlkit\.json: "):
        resume(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["tlkit.json"]


def test_two_runs_never_work_in_one_folder(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    kill(data, out, {}, 3)
    assert (out / ".lock").exists(), "left behind by the run that was killed; it locks nothing"
    lock = FolderLock(out)
    for again in (lambda: resume(out), lambda: train(data, out, {})):
        with pytest.raises(CheckpointError, match="another process is at work on this run"):
            again()
    lock.release()
    with pytest.raises(CheckpointError, match=r"is not empty, a run ended early there; go on with .*--resume"):
        train(data, out, {})
    resume(out)
    assert not (out / ".lock").exists()


class Stopper(Listener):
    """Presses Ctrl-C after an epoch."""

    def epoch(self, row: object) -> None:
        raise KeyboardInterrupt


def test_an_interrupted_run_goes_on_where_a_state_was_saved(copies: Copies, whole: Path) -> None:
    out = copies.restore(2)
    stopped = resume(out, reporter=Stopper())
    assert isinstance(stopped, FinetuneResult)
    assert (stopped.status, stopped.epochs) == ("interrupted", 1)
    assert len(rows(out)) == 1
    resume(out)
    assert_the_same(out, whole)


def test_members_in_several_processes_are_refused(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SeriesRecords(tmp_path, "folds").begin(folds(data, tmp_path), 2, scan(data))
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TlKitError, match="in a single process"):
        resume(tmp_path)


def folds(data: Path, out: Path) -> FinetuneConfig:
    cache = CacheConfig(directory=data.parent / "cache")
    return quick_config(data, out, loop=LoopConfig(), save=EVERY_STEP, cache=cache)


def test_of_a_cross_validation_the_finished_folds_are_kept(data: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "run"
    expected = cross_validate(folds(data, whole), folds=3)
    killer = Killer(out, at=8)  # in the second fold: each has two steps and an end in each of two epochs
    with killing(killer):
        cross_validate(folds(data, out), folds=3)
    first = (out / "fold-1" / "tlkit.json").stat().st_mtime_ns
    listener = Listener()
    found = resume(out, reporter=listener)
    assert [m[:11] for m in listener.messages if m.startswith("fold ")] == ["fold 2 of 3", "fold 3 of 3"]
    assert (out / "fold-1" / "tlkit.json").stat().st_mtime_ns == first
    for number in (1, 2, 3):
        assert_the_same(out / f"fold-{number}", whole / f"fold-{number}")
    assert (out / "out_of_fold.csv").read_bytes() == (whole / "out_of_fold.csv").read_bytes()
    assert found is not None
    assert found.to_dict()["out_of_fold"] == expected.to_dict()["out_of_fold"]
    assert {path.name for path in out.iterdir()} == {path.name for path in whole.iterdir()}
    assert resume(out) is None
    assert meta(out / "fold-1")["status"] == "finished"


@pytest.mark.parametrize("what", ["folds", "members"])
def test_what_a_finished_series_died_before_removing_goes(what: str, data: Path, tmp_path: Path) -> None:
    """Else a new series is told to go on with it, and going on that there is nothing to do."""
    (tmp_path / f"{what}.json").write_text("{}")
    SeriesRecords(tmp_path, what).begin(folds(data, tmp_path), 2, scan(data))
    assert is_unfinished(tmp_path)
    listener = Listener()
    assert resume(tmp_path, reporter=listener) is None
    assert listener.messages == [f"{tmp_path}: all {what} are finished; there is nothing to resume"]
    assert [path.name for path in tmp_path.iterdir()] == [f"{what}.json"]

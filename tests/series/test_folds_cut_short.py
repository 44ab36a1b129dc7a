"""A cross-validation that ends before its time: what is left of it, and what is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tl_kit
from tests.helpers import Listener, interrupt, quick_config, same, weights, write_images
from tl_kit import cross_validate
from tl_kit.data.folds import fold_manifests
from tl_kit.data.scan import scan
from tl_kit.errors import TrainingError
from tl_kit.finetuning.finetune import finetune_on
from tl_kit.series import series
from tl_kit.storage.checkpoint import read_meta

pytestmark = pytest.mark.usefixtures("own_cache")

HEAD: dict[str, Any] = {"policy": "head", "epochs": None, "batch_size": None}
STEPS = 2 * 3  # of a fold: two epochs of three batches (19 images to train on, batches of 8)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"))


def quick_fold(data: Path, out: Path) -> Path:
    """The first of three folds, run alone."""
    config = quick_config(data, out)
    finetune_on(fold_manifests(scan(data), 3, config.split)[0], config)
    return out


def test_ctrl_c_before_the_second_fold_has_an_epoch_keeps_the_first(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(monkeypatch, at=STEPS)
    with pytest.raises(KeyboardInterrupt) as stop:
        cross_validate(quick_config(data, tmp_path / "run"), folds=3)
    assert str(stop.value) == f"1 of 3 folds are finished, in {tmp_path / 'run'}"
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["config.yaml", "fold-1", "state"]
    whole = quick_fold(data, tmp_path / "alone")
    assert same(weights(tmp_path / "run" / "fold-1"), weights(whole))


def test_ctrl_c_in_the_second_epoch_of_the_second_fold_keeps_its_best_checkpoint_too(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(monkeypatch, at=STEPS + 3)
    with pytest.raises(KeyboardInterrupt) as stop:
        cross_validate(quick_config(data, tmp_path / "run"), folds=3)
    out = tmp_path / "run"
    assert str(stop.value) == (
        f"1 of 3 folds are finished, in {out}; the best checkpoint so far of the next one is in {out / 'fold-2'}"
    )
    assert sorted(path.name for path in out.iterdir()) == ["config.yaml", "fold-1", "fold-2", "state"]
    assert [read_meta(out / f"fold-{n}")["status"] for n in (1, 2)] == ["finished", "interrupted"]


def test_ctrl_c_before_anything_is_there_leaves_nothing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(monkeypatch, at=0)
    with pytest.raises(KeyboardInterrupt) as stop:
        cross_validate(quick_config(data, tmp_path / "run"), folds=3)
    assert stop.value.args == ()
    assert not (tmp_path / "run").exists()


def test_an_error_in_a_later_fold_keeps_the_finished_ones_and_says_so(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = series.finetune_on, iter(range(10))

    def failing(*args: Any, **options: Any) -> object:
        if next(calls) == 2:
            raise TrainingError("the loss is not finite")
        return original(*args, **options)

    monkeypatch.setattr(series, "finetune_on", failing)
    listener = Listener()
    with pytest.raises(TrainingError, match="not finite"):
        cross_validate(quick_config(data, tmp_path / "run", **HEAD), folds=3, reporter=listener)
    assert f"2 of 3 folds are finished, in {tmp_path / 'run'}" in listener.messages
    assert listener.messages[-1] == f"tlkit finetune --resume {tmp_path / 'run'} goes on from here"
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["config.yaml", "fold-1", "fold-2", "state"]


@pytest.mark.parametrize(
    ("folds", "options", "words"),
    [
        (1, {}, "--folds 1: must be at least 2"),
        (13, {}, "--folds 13: no class has so many images; the largest number below that works is 12"),
        (3, {"policy": "first:2"}, "--policy"),
        (3, {"epochs": 0}, "--epochs"),
        (3, {"model": "resnet81"}, "resnet"),
    ],
)
def test_mistakes_are_one_line_and_leave_no_folder(
    data: Path, tmp_path: Path, folds: int, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(tl_kit.TlKitError, match=words) as caught:
        cross_validate(replace(quick_config(data, tmp_path / "run", **HEAD), **options), folds=folds)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()

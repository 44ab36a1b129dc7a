"""Trackers hear what a run records itself, and change nothing of it; TensorBoard's files are read back."""

from __future__ import annotations

import io
import json
import random
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import tl_kit
from tests.helpers import Listener, interrupt, quick, same, weights, write_images
from tests.tracking.recorder import Meddler, Recorder, registered
from tl_kit import FinetuneResult
from tl_kit.config import RegularizationConfig, TrackingConfig
from tl_kit.errors import ConfigError
from tl_kit.tracking import openings
from tl_kit.tracking.trackers import TRACKING, Tracking

TENSORBOARD = TrackingConfig(track=("tensorboard",))
RANDOM = {"regularization": RegularizationConfig(dropout=0.4), "augment": "strong", "epochs": 2}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("tracked") / "images", ("red", "green"), images=9)


@pytest.fixture(scope="module")
def plain(data: Path) -> FinetuneResult:
    return quick(data, data.parent / "plain", **RANDOM)


@pytest.fixture(scope="module")
def tracked(data: Path) -> FinetuneResult:
    return quick(data, data.parent / "tracked", tracking=TENSORBOARD, **RANDOM)


@pytest.fixture(autouse=True)
def trackers() -> Iterator[None]:
    with registered(Recorder, Meddler):
        yield


def events(folder: Path | str) -> EventAccumulator:
    found = EventAccumulator(str(Path(folder) / "tensorboard"), size_guidance={"images": 0, "tensors": 0})
    found.Reload()
    return found


def history(folder: Path | str) -> list[dict[str, float]]:
    return [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]


def text(found: EventAccumulator, tag: str) -> str:
    (event,) = found.Tensors(f"{tag}/text_summary")
    (value,) = event.tensor_proto.string_val
    return str(value.decode())


def sent(run: list[tuple[str, Any, int | None]], method: str) -> list[tuple[Any, int | None]]:
    return [(content, step) for name, content, step in run if name == method]


def test_tensorboard_has_each_epoch_as_the_run_has_it(tracked: FinetuneResult) -> None:
    found, rows = events(tracked.checkpoint), history(tracked.checkpoint)
    assert len(rows) == 2
    for name, tag in (
        ("loss", "train/loss"),
        ("lr", "train/lr"),
        ("val_nll", "val/nll"),
        ("val_accuracy", "val/accuracy"),
    ):
        scalars = found.Scalars(tag)
        assert [event.step for event in scalars] == [1, 2]
        assert [event.value for event in scalars] == pytest.approx([row[name] for row in rows], rel=1e-6)


def test_tensorboard_has_final_scores_with_their_kinds(tracked: FinetuneResult) -> None:
    assert tracked.test is not None
    found, table = events(tracked.checkpoint), text(events(tracked.checkpoint), "scores")
    (accuracy,) = found.Scalars("final/test/accuracy")
    assert (accuracy.step, accuracy.value) == (2, pytest.approx(tracked.test["accuracy"], rel=1e-6))
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert lines[0] == ["", "val", "test"]
    assert lines[2] == ["kind", tracked.kinds["val"], tracked.kinds["test"]]
    assert lines[3] == ["accuracy", f"{(tracked.val or {})['accuracy']:.4g}", f"{tracked.test['accuracy']:.4g}"]


def test_tensorboard_has_the_effective_options(tracked: FinetuneResult) -> None:
    """Those that were given, and what the run made of the others."""
    found = events(tracked.checkpoint)
    lines = [line.strip("| ").split(" | ") for line in text(found, "options").splitlines()]
    options = {line[0].replace("\\", ""): line[1] for line in lines if len(line) == 2}
    settings = json.loads((Path(tracked.checkpoint) / "tlkit.json").read_text())["settings"]
    assert options["lr"] == f"{settings['lr']:.4g}"
    assert (options["optimizer"], options["policy"], options["dropout"]) == (settings["optimizer"], "full", "0.4")
    assert "_hparams_/session_start_info" in found.summary_metadata


def test_tensorboard_has_the_picture_of_the_curves(tracked: FinetuneResult) -> None:
    (event,) = events(tracked.checkpoint).Images("learning curves")
    with (
        Image.open(io.BytesIO(event.encoded_image_string)) as shown,
        Image.open(Path(tracked.checkpoint) / "curves.png") as own,
    ):
        assert np.array_equal(np.asarray(shown), np.asarray(own.convert("RGB")))


def test_no_weight_changes(plain: FinetuneResult, tracked: FinetuneResult) -> None:
    assert same(weights(plain.checkpoint), weights(tracked.checkpoint))
    assert (plain.val, plain.test) == (tracked.val, tracked.test)


@pytest.mark.parametrize("fails_at", ["", "start", "log", "finish"])
def test_a_tracker_that_meddles_or_fails_changes_nothing(
    plain: FinetuneResult, data: Path, tmp_path: Path, fails_at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It draws random numbers of all kinds; where it fails, the user reads it once, and the other one hears all."""
    monkeypatch.setattr(Meddler, "fails_at", fails_at)
    listener = Listener()
    run = quick(
        data, tmp_path / "run", reporter=listener, tracking=TrackingConfig(track=("meddler,recorder",)), **RANDOM
    )
    assert same(weights(plain.checkpoint), weights(run.checkpoint))
    warned = [line for line in listener.messages if "--track" in line]
    expected = ["warning: --track meddler: no network; the work goes on without it"] if fails_at else []
    assert warned == expected
    calls = Recorder.sessions[-1]
    assert [step for values, step in sent(calls, "log") if "train/loss" in values] == [1, 2]
    assert calls[-1][0] == "finish"


def test_the_random_state_of_the_caller_stays(data: Path, tmp_path: Path) -> None:
    random.seed(5)
    np.random.seed(5)
    expected = (random.random(), np.random.random())
    random.seed(5)
    np.random.seed(5)
    threads = torch.get_num_threads()
    quick(data, tmp_path / "run", tracking=TrackingConfig(track=("meddler",)), epochs=1)
    assert (random.random(), np.random.random()) == expected
    assert torch.get_num_threads() == threads


def test_a_head_in_closed_form_has_scores_and_options(data: Path, tmp_path: Path) -> None:
    run = quick(data, tmp_path / "run", policy="head", epochs=None, tracking=TrackingConfig(track=("recorder",)))
    (calls,) = Recorder.sessions
    ((options, _),) = sent(calls, "options")
    assert (options["policy"], options["optimizer"]) == ("head", "lbfgs")
    ((values, step),) = sent(calls, "log")
    assert (values["final/test/accuracy"], step) == ((run.test or {})["accuracy"], 0)
    assert not sent(calls, "images"), "there is no epoch to draw"


def test_a_resumed_run_goes_on_at_its_tracker(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every epoch is there once; a tracker that begins anew hears of those before."""
    options = {**RANDOM, "epochs": 3, "tracking": TrackingConfig(track=("tensorboard", "recorder"))}
    with monkeypatch.context() as patch:
        interrupt(patch, at=5)
        assert quick(data, tmp_path / "run", **options).status == "interrupted"
    first = [event.step for event in events(tmp_path / "run").Scalars("train/loss")]
    assert first == [1, 2]
    resumed = tl_kit.resume(tmp_path / "run")
    assert isinstance(resumed, FinetuneResult)
    found = events(tmp_path / "run").Scalars("train/loss")
    assert [event.step for event in found] == [1, 2, 3]
    assert [event.value for event in found] == pytest.approx([row["loss"] for row in history(tmp_path / "run")])
    options_sent = events(tmp_path / "run").Tensors("options/text_summary")
    assert len(options_sent) == 1
    before, after = Recorder.sessions
    assert [step for values, step in sent(before, "log") if "train/loss" in values] == [1, 2]
    assert [step for values, step in sent(after, "log") if "train/loss" in values] == [1, 2, 3]


def test_epochs_that_are_trained_again_replace_those_of_before(tmp_path: Path) -> None:
    """As after a kill: the saved state is older than the last epoch that the tracker has."""

    tracking = Tracking()
    tracking.begin(TENSORBOARD, tmp_path)
    for epoch, loss in ((1, 0.5), (2, 0.4), (3, 0.3)):
        tracking.epoch({"epoch": epoch, "loss": loss})
    tracking.close()
    tracking = Tracking()
    tracking.begin(TENSORBOARD, tmp_path, first_step=2)
    tracking.epoch({"epoch": 2, "loss": 0.25})
    tracking.close()
    found = events(tmp_path).Scalars("train/loss")
    assert [(event.step, round(event.value, 6)) for event in found] == [(1, 0.5), (2, 0.25)]


def test_a_resumed_run_does_without_a_tracker_that_has_gone(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        interrupt(patch, at=5)
        quick(data, tmp_path / "run", tracking=TrackingConfig(track=("recorder",)), **{**RANDOM, "epochs": 3})
    (tmp_path / "run" / TRACKING).write_text("[damaged")
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    monkeypatch.delitem(LOGGER_TYPE_TO_CLASS, "recorder")
    listener = Listener()
    resumed = tl_kit.resume(tmp_path / "run", reporter=listener)
    assert isinstance(resumed, FinetuneResult)
    assert [line for line in listener.messages if "--track recorder" in line] != []


def test_an_ensemble_is_tracked(tracked: FinetuneResult, plain: FinetuneResult, tmp_path: Path) -> None:
    other = shutil.copytree(plain.checkpoint, tmp_path / "other")
    config = tl_kit.EnsembleConfig(
        checkpoints=(Path(tracked.checkpoint), other), out=tmp_path / "untracked", bootstrap=50
    )
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    tl_kit.ensemble(config)
    expected = torch.get_rng_state()
    torch.set_rng_state(state)
    followed = TrackingConfig(track=("tensorboard", "meddler"))
    receipt = tl_kit.ensemble(replace(config, out=tmp_path / "e", tracking=followed)).receipt
    assert torch.equal(torch.get_rng_state(), expected)
    assert (torch.get_num_threads(), torch.get_default_device().type) == (threads, "cpu")
    found = events(tmp_path / "e")
    (accuracy,) = found.Scalars("final/test/accuracy")
    assert accuracy.value == pytest.approx(receipt["ensemble"]["test"]["accuracy"], rel=1e-6)
    table = text(found, "members")
    assert len(table.splitlines()) == 2 + 3
    assert receipt["members"][0]["kinds"]["val"] in table
    assert found.Images("receipt")


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("tensorbord", r"--track tensorbord: known are .*tensorboard.*; did you mean tensorboard\?"),
        ("tensorboard,nothing", "--track nothing: known are "),
        ("aim", "--track aim: needs aim; run pip install aim"),
    ],
)
def test_mistakes_are_told_before_any_work(data: Path, tmp_path: Path, name: str, error: str) -> None:
    tracking = TrackingConfig(track=(name,))
    for work in (
        lambda: quick(data, tmp_path / "run", tracking=tracking),
        lambda: tl_kit.fit(tl_kit.FitConfig(data=data, out=tmp_path / "fit", tracking=tracking)),
        lambda: tl_kit.ensemble(tl_kit.EnsembleConfig(checkpoints=(data,), out=tmp_path / "e", tracking=tracking)),
    ):
        with pytest.raises(ConfigError, match=error):
            work()
    assert not list(tmp_path.iterdir())


def test_names_may_be_repeated_or_have_commas_between() -> None:
    assert openings.names_in(TrackingConfig(track=("a, b", "c", "a", ""))) == ("a", "b", "c")

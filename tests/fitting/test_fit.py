"""``fit``: the best classifier on tiny pretrained networks; whole after each step, and resumable."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tl_kit
from tests.fitting.short_fits import config, stopped_at
from tests.helpers import Listener, same, weights, write_images
from tests.tracking.recorder import Recorder, registered
from tl_kit import FitResult, PushConfig
from tl_kit.config import LadderConfig, SideConfig, TrackingConfig
from tl_kit.errors import CheckpointError, ConfigError, DataError, WeightsError
from tl_kit.exporting.published_copy import published_files
from tl_kit.fitting import climb, fit_result
from tl_kit.fitting.best_result import Pool
from tl_kit.fitting.journal import Entry, Journal
from tl_kit.fitting.ladder import Attempt, Rung, Step
from tl_kit.fitting.speed import Speed
from tl_kit.storage.fit_folder import best_of, read_fit

pytestmark = pytest.mark.usefixtures("own_cache", "short_runs", "plain_pictures", "same_speed")


@pytest.fixture(scope="module")
def predicted() -> list[int]:
    """The numbers of images that were predicted for the test scores of ``whole``."""
    return []


@pytest.fixture(scope="module")
def sent() -> list[Any]:
    """What a tracker of ``whole`` was sent."""
    return []


@pytest.fixture(scope="module")
def whole(data: Path, short_runs: None, predicted: list[int], sent: list[Any]) -> FitResult:
    """With its pictures drawn, and its speed measured."""
    original = fit_result.predict_labelled

    def counting(predictor: Any, manifest: Any, samples: Any, **options: Any) -> Any:
        predicted.append(len(samples))
        return original(predictor, manifest, samples, **options)

    with pytest.MonkeyPatch.context() as patch, registered(Recorder):
        patch.setattr(fit_result, "predict_labelled", counting)
        result = tl_kit.fit(config(data, data.parent / "whole", tracking=TrackingConfig(track=("recorder",))))
        sent.extend(Recorder.sessions[-1])
        return result


def test_trackers_hear_of_every_step_and_of_the_leaderboard(whole: FitResult, sent: list[Any]) -> None:
    finished = [row for row in whole.leaderboard if row.status == "finished"]
    steps = [values for method, values, _ in sent if method == "log" and "step/val_nll" in values]
    assert [values["step/val_accuracy"] for values in steps] == pytest.approx([row.accuracy for row in finished])
    assert [values["ensemble/val_nll"] for values in steps] == pytest.approx([row.together for row in finished])
    trained = [row.name for row in finished if row.what.startswith(("short", "training"))]
    for name in trained:
        mine = [step for _, values, step in sent if isinstance(values, dict) and f"{name}/train/loss" in values]
        assert mine == list(range(1, len(mine) + 1))
    assert not any(f"{row.name}/final" in str(values) for row in finished for _, values, _ in sent)
    ((columns, *rows),) = (content for method, content, _ in sent if method == "table leaderboard")
    assert [row[0].partition(" ")[0] for row in rows] == [row.name for row in whole.leaderboard]
    assert [row[columns.index("val nll")] for row in rows if row[4] == "finished"] == [str(row.nll) for row in finished]
    final = next(values for method, values, _ in sent if method == "log" and "final/test/accuracy" in values)
    assert whole.test is not None
    assert final["final/test/accuracy"] == whole.test["accuracy"]
    assert final["final/val-selected-on/nll"] == whole.val["nll"]
    options = next(values for method, values, _ in sent if method == "options")
    assert options["img_size"] == 32


def test_its_rungs_come_in_order(whole: FitResult) -> None:
    what = [row.what for row in whole.leaderboard]
    assert what[:2] == ["head", "head"]
    assert "training in full" in what or "did not help" in whole.stopped


def test_the_folder_predicts_what_the_result_says(whole: FitResult, data: Path) -> None:
    scores = tl_kit.evaluate(whole.folder, data)
    assert whole.test is not None
    assert (scores.split, scores.kind, scores.images) == ("test", "test", whole.test["images"])
    assert scores.metrics["accuracy"] == pytest.approx(whole.test["accuracy"], abs=1e-9)
    assert scores.metrics["nll"] == pytest.approx(whole.test["nll"], abs=1e-6)
    image = next((data / "red").iterdir())
    assert whole.predict(image)[0].label == tl_kit.load(whole.best).predict(image)[0].label == "red"


def test_the_best_has_a_model_card_with_the_scores_of_the_fit(whole: FitResult) -> None:
    assert whole.test is not None
    (row,) = [line for line in (Path(whole.best) / "README.md").read_text().splitlines() if line.startswith("| test")]
    assert f"| test | {whole.test['images']} | {100 * whole.test['accuracy']:.1f} % |" in row
    for run in (Path(whole.folder) / "runs").iterdir():
        assert (run / "README.md").is_file()


def test_a_published_fit_has_the_scores_of_the_fit(whole: FitResult) -> None:
    assert whole.test is not None
    files, left_out = published_files(Path(whole.folder), Path(whole.best), "someone/colours")
    contents = {file.path: file.content for file in files}
    card = contents["README.md"]
    assert isinstance(card, bytes)
    assert f"| test | {whole.test['images']} | {100 * whole.test['accuracy']:.1f} % |" in card.decode()
    small = b"".join(content for content in contents.values() if isinstance(content, bytes))
    assert whole.folder.encode() not in small
    assert left_out
    dry = tl_kit.push(PushConfig(checkpoint=Path(whole.folder), repository="someone/colours", dry_run=True))
    assert set(dry.files) == set(contents)


def test_no_run_has_seen_a_test_image(whole: FitResult) -> None:
    for folder in (Path(whole.folder) / "runs").iterdir():
        meta = json.loads((folder / "tlkit.json").read_text())
        assert meta["test"] is None
        assert "test" not in meta["kinds"]


def test_the_leaderboard_has_what_was_measured(whole: FitResult) -> None:
    for row in whole.leaderboard:
        if row.accuracy is None:
            continue
        assert row.latency is not None
        assert row.latency > 0
        assert row.parameters is not None
        assert 0 <= row.accuracy <= 1
        meta = json.loads((Path(whole.folder) / "runs" / row.name / "tlkit.json").read_text())
        assert meta["val"]["accuracy"] == pytest.approx(row.accuracy)
        assert meta["val"]["nll"] == pytest.approx(row.nll)
    together = [row.together for row in whole.leaderboard if row.together is not None]
    added = [row.added for row in whole.leaderboard if row.added is not None]
    assert np.allclose(-np.diff(together), added)
    assert [row.name for row in whole.leaderboard if row.chosen] == sorted(whole.members)


def test_it_tells_its_story_and_draws_it(whole: FitResult) -> None:
    said = " ".join(whole.story)
    assert "tried in" in said
    assert "won:" in said
    assert "test, read once" in said
    assert whole.stopped in said
    assert Path(whole.picture).read_bytes().startswith(b"\x89PNG")
    assert json.loads(json.dumps(whole.to_dict()))["members"] == list(whole.members)
    assert read_fit(Path(whole.folder))["status"] == "finished"


def test_the_same_seed_gives_the_same(whole: FitResult, data: Path, tmp_path: Path) -> None:
    again = tl_kit.fit(config(data, tmp_path / "again"))
    assert [row.name for row in again.leaderboard] == [row.name for row in whole.leaderboard]
    assert again.val == whole.val
    for row in again.leaderboard:
        assert same(*(weights(Path(each.folder) / "runs" / row.name) for each in (again, whole)))


@pytest.mark.parametrize("count", [1, 3])
def test_interrupted_it_is_whole_and_goes_on_to_the_same_end(
    whole: FitResult, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    out = tmp_path / "cut"
    if count >= len(whole.leaderboard):
        pytest.fail("the fit has too few steps for this test")
    with (
        stopped_at(monkeypatch, count, KeyboardInterrupt()),
        pytest.raises(KeyboardInterrupt, match="--resume") as info,
    ):
        tl_kit.fit(config(data, out))
    assert str(out) in str(info.value)
    assert tl_kit.load(out).predict(next((data / "blue").iterdir()))[0].label is not None
    assert read_fit(out)["status"] == "running"
    resumed = tl_kit.resume_fit(out)
    assert [row.name for row in resumed.leaderboard] == [row.name for row in whole.leaderboard]
    assert (resumed.val, resumed.members) == (whole.val, whole.members)
    assert resumed.test is not None
    assert whole.test is not None
    assert [resumed.test[name] for name in ("accuracy", "nll")] == [whole.test[name] for name in ("accuracy", "nll")]


def test_a_step_that_fails_is_noted_and_the_others_go_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = Listener()
    with stopped_at(monkeypatch, 0, WeightsError("the file is damaged")):
        result = tl_kit.fit(config(data, tmp_path / "out"), reporter=listener)
    first = result.leaderboard[0]
    assert (first.status, first.note, first.accuracy) == ("failed", "the file is damaged", None)
    assert any("the file is damaged" in message for message in listener.messages)
    assert result.members


def test_where_every_step_fails_the_error_is_the_first_one(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*args: object, **options: object) -> None:
        raise WeightsError("the file is damaged")

    monkeypatch.setattr(climb, "finetune_on", failing)
    with pytest.raises(ConfigError, match="the file is damaged"):
        tl_kit.fit(config(data, tmp_path / "out"))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"time": "soon"}, "--time soon: give a duration"),
        ({"time": "0s"}, "--time 0s: must be above 0"),
        ({"time": -1}, "--time -1: must be above 0"),
        ({"max_params": "few"}, "--max-params few: give a number"),
        ({"models": "resnet81"}, "did you mean"),
        ({"prefer": "beauty"}, "--prefer beauty: known are"),
        ({"augment_options": ("flips=0",)}, "--aug has no option 'flips', did you mean 'flip'"),
        ({"augment_options": ("flip=2",)}, "--aug flip=2"),
        ({"allow": ("all",)}, "^--allow all: known are"),
    ],
)
def test_mistakes_are_one_line(data: Path, tmp_path: Path, options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        tl_kit.fit(config(data, tmp_path / "out", **options))


def test_limits_on_the_whole_result(data: Path, tmp_path: Path, whole: FitResult) -> None:
    sizes = sorted({row.parameters for row in whole.leaderboard if row.parameters})
    result = tl_kit.fit(config(data, tmp_path / "out", max_params=sizes[0] + 1))
    assert sum(row.parameters or 0 for row in result.leaderboard if row.chosen) <= sizes[0] + 1
    listener = Listener()
    nearest = r"no network is within --max-latency 1e-06 \(the fastest so far, local-dir:.*, takes .* ms an image\); "
    with pytest.raises(ConfigError, match=nearest):
        tl_kit.fit(config(data, tmp_path / "slow", max_latency=1e-6), reporter=listener)
    assert not any("--resume" in line for line in listener.messages), "more time would change nothing"
    assert any(f"are in {tmp_path / 'slow' / 'runs'}" in line for line in listener.messages)
    runs = sorted((tmp_path / "slow" / "runs").iterdir())
    assert all(run.name.endswith("-head") for run in runs)
    with pytest.raises(ConfigError, match="no network is within --max-latency"):
        tl_kit.resume_fit(tmp_path / "slow")
    assert sorted((tmp_path / "slow" / "runs").iterdir()) == runs, "a network over the limit is not trained"


def test_speed_gives_the_smallest_within_the_noise(data: Path, tmp_path: Path) -> None:
    result = tl_kit.fit(config(data, tmp_path / "out", prefer="speed"))
    assert result.fastest is not None
    assert set(result.fastest.members) == set(result.members)


def test_resume_refuses_what_is_no_fit(tmp_path: Path, whole: FitResult, data: Path) -> None:
    with pytest.raises(CheckpointError, match="no fit began in this folder"):
        tl_kit.resume_fit(tmp_path)
    with pytest.raises(CheckpointError, match="is not empty"):
        tl_kit.fit(config(data, Path(whole.folder)))


def test_resume_notices_other_images(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = write_images(tmp_path / "images", images=8)
    out = tmp_path / "out"
    with stopped_at(monkeypatch, 1, KeyboardInterrupt()), pytest.raises(KeyboardInterrupt):
        tl_kit.fit(replace(config(data, out), data=own))
    write_images(own, images=2, seed=7)
    with pytest.raises(DataError, match="not the images that"):
        tl_kit.resume_fit(out)


@pytest.mark.parametrize("best", ["../elsewhere", "/etc", 3, ["best-1"]])
def test_a_changed_file_leads_nowhere(tmp_path: Path, best: object) -> None:
    (tmp_path / "fit.json").write_text(json.dumps({"format": 1, "best": best}))
    with pytest.raises(CheckpointError):
        best_of(tmp_path)


def test_a_damaged_journal_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    for content in ("{", "[]", "{}", json.dumps({"config": {"data": 3}, "entries": [], "begun": None, "elapsed": 1})):
        (tmp_path / "state" / "journal.json").write_text(content)
        with pytest.raises(CheckpointError):
            Journal.read(tmp_path)


def test_a_fit_is_no_data(data: Path, tmp_path: Path) -> None:
    """A fit beside the images does not become a class."""
    own = write_images(tmp_path / "images", images=8)
    one = f"local-dir:{data.parent / 'a'}"
    tl_kit.fit(replace(config(data, own / "fits" / "one", models=one), data=own, ladder=LadderConfig(members=1)))
    from tl_kit.data.scan import scan

    assert scan(own, tl_kit.DataConfig()).classes == ("blue", "green", "red")


def test_test_images_are_predicted_once(whole: FitResult, predicted: list[int]) -> None:
    assert whole.test is not None
    assert predicted == [whole.test["images"]]


def test_small_images_train_at_their_own_size(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads see them at the network's size; and a run that is resumed has the size that it began with."""
    small = write_images(tmp_path / "small", images=16, size=(17, 23))
    models = f"local-dir:{data.parent / 'a'}"
    options = {"models": models, "img_size": None, "side": SideConfig(step=8, least=0.5), "prefer": "nll"}
    with stopped_at(monkeypatch, 1, KeyboardInterrupt()), pytest.raises(KeyboardInterrupt):
        tl_kit.fit(config(small, tmp_path / "out", **options))
    listener = Listener()
    result = tl_kit.resume_fit(tmp_path / "out", reporter=listener)
    finished = [row for row in result.leaderboard if row.status == "finished"]
    assert {(row.what.startswith("head"), row.side) for row in finished} == {(True, 32), (False, 24)}
    for row in finished:
        card = json.loads((tmp_path / "out" / "runs" / row.name / "config.json").read_text())["pretrained_cfg"]
        assert card["input_size"] == [3, row.side, row.side]
    assert "at 24 px, since the images are small" in " ".join(listener.messages)
    assert "(at 24 px, since the images are small)" in result.story[0]
    assert result.test is not None
    assert tl_kit.evaluate(result.folder, small).metrics["nll"] == pytest.approx(result.test["nll"], abs=1e-6)


def test_a_training_that_began_at_the_network_s_size_ends_there(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In journals of an earlier version, the step at work has no size of its own."""
    small = write_images(tmp_path / "small", images=16, size=(17, 23))
    options = {"models": f"local-dir:{data.parent / 'a'}", "img_size": None, "side": SideConfig(step=8, least=0.5)}
    with monkeypatch.context() as patch:
        patch.setattr(climb.StepOptions, "_smaller", lambda *_: None)
        with stopped_at(patch, 2, KeyboardInterrupt()), pytest.raises(KeyboardInterrupt):
            tl_kit.fit(config(small, tmp_path / "out", **options))
    journal = tmp_path / "out" / "state" / "journal.json"
    content = json.loads(journal.read_text())
    assert content["begun"]["step"]["rung"] == "full"
    del content["begun"]["img_size"]
    journal.write_text(json.dumps(content))
    result = tl_kit.resume_fit(tmp_path / "out")
    sides = [(row.what, row.side) for row in result.leaderboard if row.status == "finished" and "head" not in row.what]
    assert sides[0] == ("training in full", 32)
    assert {side for _, side in sides[1:]} <= {24}


def test_runs_of_one_network_at_two_sizes_have_latencies_of_their_own() -> None:
    steps: list[tuple[Rung, int, float]] = [
        ("head", 32, 9.0),
        ("view", 32, 7.0),
        ("full", 24, 4.0),
        ("member", 24, 3.0),
    ]
    entries = tuple(
        Entry(
            attempt=Attempt(step=Step(rung, "a"), status="finished"),
            name=rung,
            seconds=1.0,
            elapsed=1.0,
            side=side,
            speed=Speed(latency=latency, row=0.1),
        )
        for rung, side, latency in steps
    )
    names = tuple(entry.name for entry in entries)
    pool = Pool(
        entries=entries,
        measured=entries,
        names=names,
        samples=(),
        stack=np.empty((4, 0, 2)),
        labels=np.empty(0, dtype=np.int64),
    )
    assert pool.latencies == [7.0, 7.0, 3.0, 3.0]

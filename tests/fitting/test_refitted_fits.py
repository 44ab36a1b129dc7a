"""Fits whose members train once more, on validation images too."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import tl_kit
from tests.fitting.short_fits import LADDER, config, stopped_at
from tests.helpers import quick_config, same, weights
from tl_kit import FitResult
from tl_kit.finetuning import gradient, head_guard
from tl_kit.finetuning.preparation import training_images
from tl_kit.fitting import climb, ladder
from tl_kit.fitting.best_result import choose_best
from tl_kit.fitting.ladder import Step
from tl_kit.fitting.prices import Admission, Prices
from tl_kit.reporting import SILENT
from tl_kit.storage.checkpoint import digest_prefix, load_checkpoint, read_meta

pytestmark = pytest.mark.usefixtures("own_cache", "plain_pictures", "same_speed")


@pytest.fixture(scope="module")
def whole(data: Path) -> FitResult:
    """Of one network, whose guard keeps the average of head and trained network in every run."""
    with pytest.MonkeyPatch.context() as patch:
        averaging(patch)
        return tl_kit.fit(one_network(data, data.parent / "refitted"))


def one_network(data: Path, out: Path, **options: Any) -> tl_kit.FitConfig:
    own = {"ladder": ONE_MEMBER, "augment_options": ("brightness=0.1",)}
    return config(data, out, models=f"local-dir:{data.parent / 'a'}", **(own | options))


def averaging(patch: pytest.MonkeyPatch) -> None:
    """Training of two epochs, which is said to be better than the head; the result is the run that trained last."""
    original = climb.finetune_on

    def short(manifest: Any, options: Any, **more: Any) -> Any:
        epochs = None if options.epochs is None else min(2, options.epochs)
        return original(manifest, replace(options, epochs=epochs), **more)

    patch.setattr(climb, "finetune_on", short)
    patch.setattr(head_guard, "choose_network", lambda *_, **options: 2)  # after the trained one, and the average 0.75
    patch.setattr(ladder, "_helps", lambda *_: True)
    patch.setattr(climb, "choose_best", latest)


def latest(pool: Any, options: Any, **more: Any) -> Any:
    """The last run, alone."""
    last = len(pool.entries) - 1
    alone = replace(pool, entries=pool.entries[-1:], names=pool.names[-1:], stack=pool.stack[-1:])
    found = choose_best(alone, options, **more)
    return None if found is None else replace(found, members=(last,))


def interrupting(*_: object, **options: object) -> None:
    raise KeyboardInterrupt


ONE_MEMBER = replace(LADDER, members=1)


def refits_in(result: FitResult) -> list[Any]:
    return [row for row in result.leaderboard if row.rung == "refit"]


def test_its_member_is_the_refit_and_its_validation_score_that_of_the_first_run(whole: FitResult, data: Path) -> None:
    refits = refits_in(whole)
    assert [row.of for row in refits] == [row.name for row in whole.leaderboard if row.rung in ("full", "member")]
    last = refits[-1]
    assert whole.members == (last.name,)
    first = next(row for row in whole.leaderboard if row.name == last.of)
    assert (last.accuracy, last.nll, last.added, last.chosen) == (first.accuracy, first.nll, 0, True)
    assert not first.chosen
    assert last.latency is not None
    (member,) = (Path(whole.best) / "members").iterdir()
    runs = Path(whole.folder) / "runs"
    assert same(weights(member), weights(runs / last.name))
    assert not same(weights(member), weights(runs / last.of))
    assert whole.test is not None
    assert tl_kit.evaluate(whole.folder, data).metrics["nll"] == pytest.approx(whole.test["nll"], abs=1e-6)
    content = json.loads((Path(whole.folder) / "fit.json").read_text())
    assert content["kinds"] == {"val": "selected on", "test": "test"}
    assert "refit with validation images: 2" in whole.story[0]
    assert "cross-fitted on validation, before the refit: " in whole.story[1]
    assert (
        "members were trained once more, on the validation images too" in (Path(whole.best) / "README.md").read_text()
    )


def test_it_has_trained_on_every_image_but_those_of_test(whole: FitResult, data: Path, tmp_path: Path) -> None:
    """Its folder keeps the first network, which scores validation images for whoever asks."""
    manifest = training_images(quick_config(data, Path("nowhere")), SILENT)
    val = {digest_prefix(sample) for sample in manifest.split("val")}
    runs = Path(whole.folder) / "runs"
    for row in refits_in(whole):
        first, again = (read_meta(runs / name) for name in (row.of, row.name))
        assert again["refit"]
        assert again["data"] == {**first["data"], "refit": True}
        assert set(again["data"]["val"]) == val
        assert (again["val"], again["kinds"], again["test"]) == (first["val"], first["kinds"], None)
        assert again["settings"]["settled"] == {name: first["guard"][name] for name in ("alpha", "temperature")}
        assert again["settings"]["settled"]["alpha"] == 0.5
        for name in ("batchnorm", "augment", "flip", "balance", "optimizer", "lr"):
            assert first["settings"][name] == again["settings"][name], name
        assert first["settings"]["augment"] == "light, with brightness=0.1"
        before = load_checkpoint(runs / row.name, held_out=True).model.state_dict()
        expected = load_checkpoint(runs / row.of, held_out=True).model.state_dict()
        assert all(torch.equal(before[name], tensor) for name, tensor in expected.items())
        assert any(not torch.equal(before[name], tensor) for name, tensor in weights(runs / row.name).items())
    scores = tl_kit.evaluate(whole.folder, data, split="val")
    assert scores.kind == "selected on"
    assert scores.metrics["nll"] == pytest.approx(whole.selected_val["nll"], abs=1e-6)


def test_its_result_is_what_one_without_refits_is(whole: FitResult, data: Path, tmp_path: Path) -> None:
    """A member of ensembles, a teacher and the subject of a report: none of them scores it on images it trained on."""
    other = next(row.name for row in whole.leaderboard if row.rung == "head")
    members = (Path(whole.folder), Path(whole.folder) / "runs" / other)
    combined = tl_kit.ensemble(tl_kit.EnsembleConfig(checkpoints=members, out=tmp_path / "both"))
    assert combined.receipt["kinds"]["val"] == "selected on"
    page = tl_kit.report(whole.folder, out=tmp_path / "report.html")
    assert "trained on" not in page.file.read_text()
    teaching = tl_kit.DistillConfig(teacher=Path(whole.folder))
    student = tl_kit.finetune(quick_config(data, tmp_path / "student", distill=teaching, policy="full", epochs=1))
    assert student.kinds["val"] == "selected on"


def test_interrupted_it_goes_on_to_the_same_weights(whole: FitResult, data: Path, tmp_path: Path) -> None:
    first = [row.rung for row in whole.leaderboard].index("refit")
    out = tmp_path / "cut"
    with pytest.MonkeyPatch.context() as patch:
        averaging(patch)
        for count in (first, 0):  # before it begins, and again after the resume
            with stopped_at(patch, count, KeyboardInterrupt()), pytest.raises(KeyboardInterrupt, match="--resume"):
                tl_kit.resume_fit(out) if out.exists() else tl_kit.fit(one_network(data, out))
            assert tl_kit.load(out).predict(next((data / "red").iterdir()))[0].error is None
        resumed = tl_kit.resume_fit(out)
    assert [row.name for row in resumed.leaderboard] == [row.name for row in whole.leaderboard]
    assert (resumed.val, resumed.members) == (whole.val, whole.members)
    for row in refits_in(whole):
        assert same(*(weights(Path(each.folder) / "runs" / row.name) for each in (resumed, whole)))


def test_it_is_interrupted_in_its_training_too(whole: FitResult, data: Path, tmp_path: Path) -> None:
    """At the end of its epochs, before what is kept of head and network is taken."""
    out = tmp_path / "cut"
    with pytest.MonkeyPatch.context() as patch:
        averaging(patch)
        original = gradient.take_settled
        patch.setattr(gradient, "take_settled", interrupting)
        with pytest.raises(KeyboardInterrupt):
            tl_kit.fit(one_network(data, out))
        patch.setattr(gradient, "take_settled", original)
        assert "refit" in json.loads((out / "state" / "journal.json").read_text())["begun"]["name"]
        resumed = tl_kit.resume_fit(out)
    for row in refits_in(whole):
        assert same(*(weights(Path(each.folder) / "runs" / row.name) for each in (resumed, whole)))


def test_a_first_run_whose_record_is_damaged_trains_again_before_it(
    whole: FitResult, data: Path, tmp_path: Path
) -> None:
    first = [row.rung for row in whole.leaderboard].index("refit")
    out = tmp_path / "cut"
    with pytest.MonkeyPatch.context() as patch:
        averaging(patch)
        with stopped_at(patch, first, KeyboardInterrupt()), pytest.raises(KeyboardInterrupt):
            tl_kit.fit(one_network(data, out))
        (out / "state" / f"{whole.leaderboard[first - 1].name}.json").write_text("{")
        resumed = tl_kit.resume_fit(out)
    assert [row.rung for row in resumed.leaderboard] == [row.rung for row in whole.leaderboard]
    assert resumed.test == {**(whole.test or {}), "readings": 1}


def test_a_short_run_trains_again_where_there_is_no_time_for_more(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    averaging(monkeypatch)
    original = Prices.admit

    def hurried(prices: Prices, step: Step, *more: Any) -> Admission:
        if step.rung in ("full", "part"):
            return Admission(admitted=False, needed=99.0)
        return original(prices, step, *more)

    monkeypatch.setattr(Prices, "admit", hurried)
    result = tl_kit.fit(config(data, tmp_path / "fit", ladder=replace(ONE_MEMBER, most_views=1)))
    assert [row.rung for row in result.leaderboard if row.status == "no time"] == ["full", "part"]
    assert [row.rung for row in result.leaderboard if row.status == "finished"][-2:] == ["short", "refit"]
    assert result.members == (result.leaderboard[-1].name,)
    assert "training of the last layers" in result.stopped
    assert "needs about 99 s" in result.stopped


def test_few_validation_images_are_no_reason_for_it(data: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        averaging(patch)
        result = tl_kit.fit(one_network(data, tmp_path / "fit", ladder=replace(ONE_MEMBER, refit_from=0.5)))
    assert refits_in(result) == []
    assert any(row.rung == "full" for row in result.leaderboard)

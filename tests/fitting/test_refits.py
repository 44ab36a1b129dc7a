"""Refits: the members that trained do so once more, on validation images too."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tl_kit
from tests.fitting.short_fits import LADDER, config, stopped_at
from tests.fitting.test_ladder import CONFIG, HEADS, finished, networks
from tests.helpers import quick_config, same, weights, write_images
from tl_kit import FinetuneResult, FitResult
from tl_kit.config import LoopConfig
from tl_kit.data.manifest import Manifest, Sample
from tl_kit.errors import TrainingError
from tl_kit.finetuning.finetune import finetune_on
from tl_kit.finetuning.preparation import training_images
from tl_kit.finetuning.result import Trained
from tl_kit.finetuning.run import Settled
from tl_kit.fitting import climb
from tl_kit.fitting.journal import Entry
from tl_kit.fitting.ladder import Attempt, Step, first_run, next_step
from tl_kit.fitting.refits import refit_images, refit_of, stand_ins
from tl_kit.reporting import SILENT
from tl_kit.storage.checkpoint import digest_prefix, read_meta

pytestmark = pytest.mark.usefixtures("own_cache", "plain_pictures", "same_speed")


def steps_of(
    outcome: Callable[[Step], Attempt], chosen: Callable[[Attempt], bool], *, early: bool = False
) -> tuple[list[Step], str]:
    """All steps of a ladder whose best ensemble are the ``chosen`` attempts, and its last word."""
    done: list[Attempt] = []
    while True:
        members = [a.step for a in done if a.status == "finished" and a.step.rung != "refit" and chosen(a)]
        step = next_step(done, networks(*HEADS), views=(), early=early, chosen=members, seed=0, config=CONFIG)
        if isinstance(step, str):
            return [attempt.step for attempt in done], step
        done.append(outcome(step))
        assert len(done) < 100


def gaining() -> Callable[[Step], Attempt]:
    """Training helps, and each step lowers the ensemble's NLL."""
    gain = iter(np.linspace(0.3, 0.05, 60))

    def outcome(step: Step) -> Attempt:
        nll = {"head": HEADS[step.model], "short": 0.25}.get(step.rung, 0.1)
        found = finished(step, nll, together=float(next(gain)))
        return replace(found, losses=np.empty(0)) if step.rung == "refit" else found

    return outcome


def test_the_run_in_full_trains_again_before_further_members_and_each_member_after_its_run() -> None:
    steps, last = steps_of(gaining(), lambda attempt: attempt.step.rung in ("full", "member"))
    rungs = [step.rung for step in steps[5:]]
    assert rungs == ["full", "refit", *["member", "refit"] * CONFIG.members]
    assert [first_run(step) for step in steps[6::2]] == steps[5::2]
    assert "further members" in last


def test_what_is_no_member_does_not_train_again() -> None:
    steps, _ = steps_of(gaining(), lambda attempt: attempt.step.rung == "head")
    assert not any(step.rung == "refit" for step in steps)


def test_a_run_whose_guard_kept_the_head_does_not_train_again() -> None:
    """Its head has been fitted to all images."""
    steps, _ = steps_of(lambda step: finished(step, 0.4, kept="head"), lambda attempt: True)
    assert {step.rung for step in steps} == {"head", "short"}


def test_without_time_for_a_refit_the_next_member_follows() -> None:
    outcome = gaining()

    def hurried(step: Step) -> Attempt:
        return Attempt(step=step, status="no time") if step.rung == "refit" else outcome(step)

    steps, _ = steps_of(hurried, lambda attempt: attempt.step.rung == "full")
    assert [step.rung for step in steps[5:8]] == ["full", "refit", "member"]
    assert sum(step.rung == "refit" for step in steps) == 1


def test_a_short_run_that_is_a_member_trains_again_at_the_end() -> None:
    steps, last = steps_of(lambda step: finished(step, 0.4, together=0.3), lambda a: a.step.rung == "short")
    again = [step for step in steps if step.rung == "refit"]
    assert [first_run(step).rung for step in again] == ["short", "short"]
    assert "no more than noise" in last


def test_a_network_that_trained_early_trains_again_before_further_heads() -> None:
    steps, _ = steps_of(gaining(), lambda attempt: attempt.step.rung == "full", early=True)
    assert [(step.rung, step.model) for step in steps[:4]] == [
        ("head", "small"),
        ("full", "small"),
        ("refit", "small"),
        ("head", "middle"),
    ]


def test_refits_do_not_count_as_members_that_gain_nothing() -> None:
    """The two members before the last word are compared with the ensemble before them."""
    steps, last = steps_of(lambda step: finished(step, 0.4, together=0.3), lambda a: a.step.rung in ("full", "member"))
    assert sum(step.rung == "member" for step in steps) == CONFIG.patience
    assert "no more than noise" in last


def manifest_of(train: int, val: int, test: int = 0) -> Manifest:
    counts = {"train": train, "val": val, "test": test}
    samples = [
        Sample(path=Path(f"{split}{number}.png"), label=number % 2, split=split, digest=f"{split}{number:020}")
        for split, count in counts.items()
        for number in range(count)
    ]
    return Manifest(root=Path("imgs"), classes=("a", "b"), samples=tuple(samples))


def entry_of(step: Step, *, name: str, epochs: int = 12, guard: dict[str, Any] | None = None) -> Entry:
    result = FinetuneResult(
        checkpoint=name,
        model=step.model,
        policy="full",
        classes=("a", "b"),
        trainable_parameters=1,
        epochs=epochs,
        val=None,
        test=None,
        seconds={},
        audit={},
        guard=guard,
    )
    trained = Trained(result=result, manifest=manifest_of(2, 2), logits={})
    attempt = finished(step, 0.1)
    return Entry(attempt=attempt, name=name, seconds=50.0, elapsed=60.0, estimate=40.0, epochs=epochs, trained=trained)


FULL = Step("full", "small", 0, "center")
REFIT = Step("refit", "small", 0, "center", of="full")


@pytest.mark.parametrize(
    ("train", "val", "epochs", "expected"),
    [(222, 72, 29, 22), (600, 180, 12, 12), (357, 112, 17, 13), (100, 100, 8, 8), (100, 300, 30, 12)],
)
def test_it_has_about_as_many_updates_but_no_fewer_epochs_than_usual(
    train: int, val: int, epochs: int, expected: int
) -> None:
    refit = refit_of(REFIT, [entry_of(FULL, name="02", epochs=epochs)], manifest_of(train, val))
    assert refit.epochs == expected
    assert LoopConfig().epochs == 12
    assert refit.ratio == pytest.approx(expected / epochs * (train + val) / train)


def test_it_keeps_of_head_and_network_what_the_guard_kept() -> None:
    guard = {"kept": "average 0.75", "alpha": 0.75, "temperature": 1.3}
    first = entry_of(FULL, name="02", guard=guard)
    assert refit_of(REFIT, [first], manifest_of(4, 4)).settled == Settled(alpha=0.75, temperature=1.3)
    assert refit_of(REFIT, [replace(first, trained=None)], manifest_of(4, 4)).settled == Settled()
    assert stand_ins([first, replace(entry_of(REFIT, name="03"), trained=None)]) == {"02": "03"}


def test_it_trains_by_the_method_of_the_first_run() -> None:
    """More images must not give it other statistics, augmentation or weights of classes."""
    refit = refit_of(REFIT, [entry_of(FULL, name="02")], manifest_of(4, 4))
    options = tl_kit.FinetuneConfig(model="test_resnet", data=Path("imgs"))
    settings = {"batchnorm": "frozen", "augment": "light", "balance": "loss"}
    found = refit.options(options, {"settings": settings})
    assert {name: getattr(found, name) for name in settings} == settings
    for record in ({}, {"settings": None}, {"settings": {**settings, "balance": 3}}):
        with pytest.raises(TrainingError, match="02: its record does not say how it was trained"):
            refit.options(options, record)


def test_copies_of_test_images_are_left_out_of_it() -> None:
    manifest = manifest_of(4, 4, 2)
    first, second = manifest.split("val")[:2]
    tests = (replace(manifest.split("test")[0], digest=first.digest), manifest.split("test")[1])
    without = replace(manifest, samples=(*manifest.split("train"), *manifest.split("val")))
    found = refit_images(without, tests)
    assert {sample.split for sample in found.samples} == {"train"}
    digests = {sample.digest for sample in found.samples}
    assert first.digest not in digests
    assert second.digest in digests
    assert len(found.samples) == 7


@pytest.fixture(scope="module")
def whole(data: Path) -> FitResult:
    """Of one network; ``data`` has few images, whose guard would keep the head of any network: it has none here."""
    with pytest.MonkeyPatch.context() as patch:
        unguarded(patch)
        return tl_kit.fit(one_network(data, data.parent / "refitted"))


def one_network(data: Path, out: Path, **options: Any) -> tl_kit.FitConfig:
    return config(data, out, models=f"local-dir:{data.parent / 'a'}", **options)


def unguarded(patch: pytest.MonkeyPatch) -> None:
    """Training of two epochs, no head guard: what trained is kept, and better than the head, by its word."""
    original = climb.finetune_on

    def short(manifest: Any, options: Any, **more: Any) -> Any:
        epochs = None if options.epochs is None else min(2, options.epochs)
        guard = replace(options.guard, head_guard=False)
        return original(manifest, replace(options, epochs=epochs, guard=guard), **more)

    patch.setattr(climb, "finetune_on", short)
    patch.setattr("tl_kit.fitting.ladder._helps", lambda *_: True)
    patch.setattr(climb, "choose_best", latest)


def latest(pool: Any, options: Any, **more: Any) -> Any:
    """The last run alone, by the choice among nothing else."""
    from tl_kit.fitting.best_result import choose_best

    last = len(pool.entries) - 1
    alone = replace(pool, entries=pool.entries[-1:], names=pool.names[-1:], stack=pool.stack[-1:])
    found = choose_best(alone, options, **more)
    return None if found is None else replace(found, members=(last,))


def refits_in(result: FitResult) -> list[Any]:
    return [row for row in result.leaderboard if row.rung == "refit"]


def test_its_member_is_the_refit_and_its_validation_score_that_of_the_first_run(whole: FitResult, data: Path) -> None:
    refits = refits_in(whole)
    assert [row.of for row in refits] == [row.name for row in whole.leaderboard if row.rung in ("full", "member")]
    last = refits[-1]
    assert whole.members == (last.name,)
    assert (last.accuracy, last.nll, last.added, last.chosen) == (None, None, None, True)
    assert last.latency is not None
    (member,) = (Path(whole.best) / "members").iterdir()
    runs = Path(whole.folder) / "runs"
    assert same(weights(member), weights(runs / last.name))
    assert not same(weights(member), weights(runs / last.of))
    assert whole.test is not None
    assert tl_kit.evaluate(whole.folder, data).metrics["nll"] == pytest.approx(whole.test["nll"], abs=1e-6)
    content = json.loads((Path(whole.folder) / "fit.json").read_text())
    assert content["kinds"] == {"val": "selected on", "test": "test"}
    assert "refit with validation images: 3" in whole.story[0]
    assert "cross-fitted on validation, before the refit: " in whole.story[1]
    assert (
        "members were trained once more, on the validation images too" in (Path(whole.best) / "README.md").read_text()
    )


def test_it_has_seen_every_image_but_those_of_test(whole: FitResult, data: Path) -> None:
    manifest = training_images(quick_config(data, Path("nowhere")), SILENT)
    expected = {split: {digest_prefix(s) for s in manifest.split(split)} for split in ("train", "val", "test")}
    for row in refits_in(whole):
        first, again = (read_meta(Path(whole.folder) / "runs" / name) for name in (row.of, row.name))
        assert set(first["data"]["train"]) == expected["train"]
        assert set(again["data"]["train"]) == expected["train"] | expected["val"]
        assert again["data"]["val"] == []
        assert (again["val"], again["test"]) == (None, None)
        for name in ("batchnorm", "augment", "balance", "optimizer", "lr"):
            assert first["settings"][name] == again["settings"][name], name
    assert tl_kit.evaluate(whole.folder, data, split="val").kind == "trained on"


def test_interrupted_it_goes_on_to_the_same_weights(whole: FitResult, data: Path, tmp_path: Path) -> None:
    first = [row.rung for row in whole.leaderboard].index("refit")
    out = tmp_path / "cut"
    with pytest.MonkeyPatch.context() as patch:
        unguarded(patch)
        for count in (first, 0):  # before it begins, and again after the resume
            with stopped_at(patch, count, KeyboardInterrupt()), pytest.raises(KeyboardInterrupt, match="--resume"):
                tl_kit.resume_fit(out) if out.exists() else tl_kit.fit(one_network(data, out))
            assert tl_kit.load(out).predict(next((data / "red").iterdir()))[0].error is None
        resumed = tl_kit.resume_fit(out)
    assert [row.name for row in resumed.leaderboard] == [row.name for row in whole.leaderboard]
    assert (resumed.val, resumed.members) == (whole.val, whole.members)
    for row in refits_in(whole):
        assert same(*(weights(Path(each.folder) / "runs" / row.name) for each in (resumed, whole)))


def test_few_validation_images_are_no_reason_for_it(data: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        unguarded(patch)
        result = tl_kit.fit(one_network(data, tmp_path / "fit", ladder=replace(LADDER, refit_from=0.5)))
    assert refits_in(result) == []
    assert any(row.rung == "full" for row in result.leaderboard)


@pytest.fixture(scope="module")
def settled_runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Settled], Path]:
    """A run without validation images, of which so much is kept."""
    root = tmp_path_factory.mktemp("settled")
    data = write_images(root / "images", images=12)
    options = quick_config(data, root / "run", policy="lp-ft", epochs=2)
    manifest = refit_images(training_images(options, SILENT), ())

    def run(settled: Settled) -> Path:
        out = root / f"run-{settled.alpha}-{settled.temperature}"
        if not out.exists():
            trained = finetune_on(manifest, replace(options, out=out), settled=settled)
            assert trained.result.val is None
            assert trained.result.status == "finished"
        return out

    return run


def test_without_validation_images_epochs_have_no_score_and_the_last_one_is_kept(
    settled_runs: Callable[[Settled], Path],
) -> None:
    folder = settled_runs(Settled())
    epochs = [line for line in (folder / "metrics.jsonl").read_text().splitlines() if '"epoch"' in line]
    assert len(epochs) == 2
    assert not any("val_" in line for line in epochs)
    meta = read_meta(folder)
    assert meta["best_epoch"] == 2
    assert meta["chosen_by_val"] == []
    assert meta["settings"]["settled"] == {"alpha": 1.0, "temperature": 1.0}


def test_an_average_lies_between_the_head_and_the_trained_network(settled_runs: Callable[[Settled], Path]) -> None:
    """W(α) = (1 - α) H + α T, so that W(1/4) = 3/2 W(1/2) - 1/2 W(1), without the head's own weights."""
    trained, half, quarter = (weights(settled_runs(Settled(alpha=alpha))) for alpha in (1.0, 0.5, 0.25))
    moved = 0
    for name, tensor in trained.items():
        if tensor.is_floating_point() and not name.endswith(("running_mean", "running_var")):
            assert torch.allclose(quarter[name], 1.5 * half[name] - 0.5 * tensor, atol=1e-5), name
            moved += not torch.equal(half[name], tensor)
    assert moved > 2


def test_the_temperature_divides_the_classifier_alone(settled_runs: Callable[[Settled], Path]) -> None:
    plain, softened = (weights(settled_runs(Settled(temperature=each))) for each in (1.0, 2.0))
    for name, tensor in plain.items():
        expected = tensor / 2 if name.startswith("fc.") else tensor
        assert torch.equal(softened[name], expected), name

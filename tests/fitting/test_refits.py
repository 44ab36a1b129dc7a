"""Refits: the members that trained do so once more, on validation images too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tl_kit
from tests.fitting.test_ladder import CONFIG, HEADS, finished, networks
from tests.helpers import quick_config, weights, write_images
from tl_kit.config import BudgetConfig, LoopConfig
from tl_kit.data.manifest import Manifest, Sample
from tl_kit.errors import TrainingError
from tl_kit.finetuning.finetune import finetune_on
from tl_kit.finetuning.preparation import training_images
from tl_kit.finetuning.run import Settled
from tl_kit.fitting import prices as prices_module
from tl_kit.fitting import refits
from tl_kit.fitting.budget import Budget
from tl_kit.fitting.journal import Entry
from tl_kit.fitting.ladder import Attempt, Step, first_run, next_step
from tl_kit.fitting.prices import Prices
from tl_kit.fitting.refits import Refit, refit_images, refit_of, stand_ins
from tl_kit.planning.price import Price
from tl_kit.reporting import SILENT
from tl_kit.storage.checkpoint import read_meta

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


def manifest_of(train: int, val: int) -> Manifest:
    samples = [
        Sample(path=Path(f"{split}{number}.png"), label=number % 2, split=split, digest=f"{split}{number:020}")
        for split, count in (("train", train), ("val", val))
        for number in range(count)
    ]
    return Manifest(root=Path("imgs"), classes=("a", "b"), samples=tuple(samples))


FULL = Step("full", "small", 0, "center")
REFIT = Step("refit", "small", 0, "center", of="full")
SETTINGS = {"batchnorm": "frozen", "augment": "light", "balance": "loss", "views": 2}
RECORD: dict[str, Any] = {
    "settings": SETTINGS,
    "config": {"img_size": 64},
    "guard": None,
    "kinds": {"val": "selected on"},
}


def entry_of(step: Step, *, name: str, epochs: int = 12) -> Entry:
    attempt = finished(step, 0.1)
    return Entry(attempt=attempt, name=name, seconds=50.0, elapsed=60.0, estimate=40.0, policy="lp-ft:2", epochs=epochs)


def refit_by(
    record: dict[str, Any], monkeypatch: pytest.MonkeyPatch, *, epochs: int = 12, train: int = 30, val: int = 10
) -> Refit:
    """The refit of a run with this record."""
    monkeypatch.setattr(refits, "read_meta", lambda _: record)
    options = tl_kit.FinetuneConfig(model="small", data=Path("imgs"))
    entries = [entry_of(FULL, name="02", epochs=epochs)]
    return refit_of(REFIT, entries, options, manifest=manifest_of(train, val), folder=Path("fit"))


@pytest.mark.parametrize(
    ("train", "val", "epochs", "expected"),
    [(222, 72, 29, 22), (600, 180, 12, 12), (357, 112, 17, 13), (100, 100, 8, 8), (100, 300, 30, 12)],
)
def test_it_has_about_as_many_updates_but_no_fewer_epochs_than_usual(
    train: int, val: int, epochs: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    refit = refit_by(RECORD, monkeypatch, epochs=epochs, train=train, val=val)
    assert refit.options.epochs == expected
    assert LoopConfig().epochs == 12
    assert refit.seconds == pytest.approx(50.0 * expected / epochs * (train + val) / train)


def test_it_keeps_of_head_and_network_what_the_guard_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {"kept": "average 0.75", "alpha": 0.75, "temperature": 1.3}
    settled = refit_by({**RECORD, "guard": kept}, monkeypatch).settled
    assert (settled.alpha, settled.temperature, settled.first) == (0.75, 1.3, Path("fit/runs/02"))
    unguarded = refit_by(RECORD, monkeypatch).settled
    assert (unguarded.alpha, unguarded.temperature) == (1, 1)
    assert stand_ins([entry_of(FULL, name="02"), entry_of(REFIT, name="03")]) == {"02": "03"}


def test_it_trains_by_the_method_of_the_first_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """More images must not give it other statistics, augmentation or weights of classes; nor the options of today."""
    options = refit_by(RECORD, monkeypatch).options
    assert (options.policy, options.img_size, options.cache.default_views) == ("lp-ft:2", 64, 2)
    assert (options.batchnorm, options.augment, options.balance) == ("frozen", "light", "loss")
    assert not options.augment_options, "a record of an earlier version says nothing of mirror images"
    changed = {**SETTINGS, "augment": "light, with flip=0.0", "flip": 0.0}
    options = refit_by({**RECORD, "settings": changed}, monkeypatch).options
    assert (options.augment, options.augment_options) == ("light", {"flip": 0.0})


@pytest.mark.parametrize(
    "change",
    [
        {"settings": None},
        {"settings": {**SETTINGS, "balance": 3}},
        {"settings": {**SETTINGS, "views": "two"}},
        {"config": {"img_size": "64"}},
        {"guard": {"alpha": None}},
        {"kinds": {}},
    ],
)
def test_a_changed_record_is_an_error_that_names_the_run(
    change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TrainingError, match="02: its record does not say how it was trained"):
        refit_by({**RECORD, **change}, monkeypatch)


@pytest.fixture
def prices(monkeypatch: pytest.MonkeyPatch) -> Prices:
    """Of a fit that has 100 s left; a trial says that a run takes 70 s."""
    monkeypatch.setattr(prices_module, "price_of", lambda *_, **options: Price(policy="full", epochs=4, seconds=70.0))
    budget = Budget(103.0, 0.0, 3.0, clock=lambda: 0.0)
    return Prices(networks("small"), manifest_of(30, 10), budget, BudgetConfig(), CONFIG)


def test_it_is_priced_by_what_its_first_run_took(prices: Prices, monkeypatch: pytest.MonkeyPatch) -> None:
    refit = refit_by({**RECORD, "settings": {**SETTINGS, "views": 0}}, monkeypatch)
    admission = prices.refit(refit, [], SILENT)
    assert admission.seconds == pytest.approx(50.0 * 40 / 30)
    assert (admission.admitted, admission.epochs, admission.policy) == (True, 12, "lp-ft:2")
    assert not prices.refit(replace(refit, seconds=99.0), [], SILENT).admitted
    interrupted = prices.refit(replace(refit, seconds=None), [], SILENT)
    assert interrupted.needed == pytest.approx(70.0 * BudgetConfig().first_margin)
    corrected = replace(entry_of(FULL, name="02"), seconds=50.0, estimate=100.0)
    assert prices.refit(replace(refit, seconds=None), [corrected], SILENT).seconds == 35.0


def test_what_frozen_layers_give_is_in_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """20 of the 50 s: of these, only those of the new images come again."""
    refit = refit_by({**RECORD, "seconds": {"features": 20.0}}, monkeypatch)
    assert refit.seconds == pytest.approx(30.0 * 40 / 30 + 20.0 * 10 / 30)


def test_its_measured_time_does_not_correct_estimates(prices: Prices) -> None:
    first = replace(entry_of(FULL, name="02"), seconds=160.0, estimate=100.0)
    again = [replace(entry_of(REFIT, name=name), seconds=100.0, estimate=100.0) for name in ("03", "04")]
    assert prices._correction([first, *again]) == (1.6, True)


@pytest.fixture(scope="module")
def settled_runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A second training on all images, of which so much is kept."""
    root = tmp_path_factory.mktemp("settled")
    data = write_images(root / "images", images=12)
    options = quick_config(data, root / "first", policy="lp-ft", epochs=2)
    tl_kit.finetune(options)
    record = read_meta(root / "first")
    manifest = refit_images(training_images(options, SILENT))

    def run(**kept: float) -> Path:
        settled = Settled(first=root / "first", record=record, **kept)
        out = root / f"run-{settled.alpha}-{settled.temperature}"
        if not out.exists():
            trained = finetune_on(manifest, replace(options, out=out), settled=settled)
            assert trained.result.val == record["val"]
            assert trained.result.status == "finished"
        return out

    return run


def test_without_validation_images_epochs_have_no_score_and_the_last_one_is_kept(
    settled_runs: Callable[..., Path],
) -> None:
    folder = settled_runs()
    epochs = [line for line in (folder / "metrics.jsonl").read_text().splitlines() if '"epoch"' in line]
    assert len(epochs) == 2
    assert not any("val_" in line for line in epochs)
    meta = read_meta(folder)
    assert meta["best_epoch"] == 2
    assert meta["settings"]["settled"] == {"alpha": 1.0, "temperature": 1.0}


def test_an_average_lies_between_the_head_and_the_trained_network(settled_runs: Callable[..., Path]) -> None:
    """W(α) = (1 - α) H + α T, so that W(1/4) = 3/2 W(1/2) - 1/2 W(1), without the head's own weights."""
    trained, half, quarter = (weights(settled_runs(alpha=alpha)) for alpha in (1.0, 0.5, 0.25))
    moved = 0
    for name, tensor in trained.items():
        if tensor.is_floating_point() and not name.endswith(("running_mean", "running_var")):
            assert torch.allclose(quarter[name], 1.5 * half[name] - 0.5 * tensor, atol=1e-5), name
            moved += not torch.equal(half[name], tensor)
    assert moved > 2


def test_the_temperature_divides_the_classifier_alone(settled_runs: Callable[..., Path]) -> None:
    plain, softened = (weights(settled_runs(temperature=each)) for each in (1.0, 2.0))
    for name, tensor in plain.items():
        expected = tensor / 2 if name.startswith("fc.") else tensor
        assert torch.equal(softened[name], expected), name

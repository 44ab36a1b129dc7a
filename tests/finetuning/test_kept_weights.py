"""Snapshots, late epochs and the uniform average: the very weights of the run's way, and not of another run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import tl_kit
from tests.helpers import NEARLY_SQUARE, UNGUARDED, Listener, interrupt, quick, same, weights, write_images
from tl_kit import EnsembleConfig, SwaConfig
from tl_kit.config import LoopConfig, RegularizationConfig, RuntimeConfig
from tl_kit.errors import ConfigError
from tl_kit.finetuning import kept_weights as along
from tl_kit.storage.checkpoint import load_checkpoint, read_meta
from tl_kit.training import loop
from tl_kit.training.task import Task

States = list[dict[str, Tensor]]
STEPS = 3  # an epoch: 21 images to train on, batches of 8


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = write_images(tmp_path_factory.mktemp("along") / "images", images=13, size=NEARLY_SQUARE)
    quick(data, data.parent / "pretrained", batch_size=4)
    return data


@pytest.fixture
def trace(monkeypatch: pytest.MonkeyPatch) -> States:
    """The model's state after each update."""
    states: States = []
    original = loop.train_step

    def noting(task: Task, *args: Any, **options: Any) -> float:
        loss = original(task, *args, **options)
        model = {name.removeprefix("model."): t.detach().clone() for name, t in task.model.state_dict().items()}
        states.append(model)
        return loss

    monkeypatch.setattr(loop, "train_step", noting)
    return states


def pretrained(data: Path) -> dict[str, Any]:
    return {"weights": str(data.parent / "pretrained")}


CYCLES: dict[str, Any] = {"epochs": 4, "schedule": "cyclic"}


@pytest.mark.parametrize("policy", ["full", "last:2", "gradual"])
def test_a_snapshot_holds_the_weights_of_the_same_run_stopped_where_a_cycle_ends(
    data: Path, tmp_path: Path, trace: States, policy: str
) -> None:
    """Cycles may end within an epoch. The run itself is what it is without snapshots."""
    options = {**CYCLES, **pretrained(data), "policy": policy}
    usual = quick(data, tmp_path / "usual", schedule_options={"cycles": 3}, **options)
    on_the_way = list(trace)
    run = quick(data, tmp_path / "run", snapshots=3, **options)
    assert [s.step for s in run.snapshots] == [4, 8, 12], "4 epochs of 3 steps in 3 cycles; the last is the last step"
    for number, snapshot in enumerate(run.snapshots, start=1):
        assert snapshot.checkpoint == str(tmp_path / "run" / f"snapshot-{number}")
        assert same(weights(snapshot.checkpoint), on_the_way[snapshot.step - 1])
    assert same(weights(run.checkpoint), weights(usual.checkpoint))
    assert (run.val, run.test) == (usual.val, usual.test)


def test_a_snapshot_is_a_checkpoint_with_the_scores_that_its_weights_have(data: Path, tmp_path: Path) -> None:
    run = quick(data, tmp_path / "run", snapshots=2, late=1, **CYCLES, **pretrained(data))
    assert [Path(s.checkpoint).name for s in run.snapshots] == ["epoch-4", "snapshot-1", "snapshot-2"]
    for snapshot in run.snapshots:
        for split, scores in (("val", snapshot.val), ("test", snapshot.test)):
            fp32 = RuntimeConfig(precision="fp32")
            assert tl_kit.evaluate(snapshot.checkpoint, data, split=split, runtime=fp32).metrics == scores
        meta = read_meta(Path(snapshot.checkpoint))
        own = {name: value for name, value in read_meta(tmp_path / "run")["data"].items() if name != "refit"}
        assert meta["data"] == {**own, "selected": []}  # a step was given, not chosen
        assert (meta["val"], meta["step"], meta["status"]) == (snapshot.val, snapshot.step, "finished")
    assert json.loads(json.dumps(run.to_dict()))["snapshots"][1]["step"] == 6
    folders = tuple(Path(s.checkpoint) for s in run.snapshots[1:])
    together = tl_kit.ensemble(EnsembleConfig(checkpoints=folders, out=tmp_path / "ensemble"))
    assert len(together.receipt["members"]) == 2


def test_late_epochs_are_the_last_ones(data: Path, tmp_path: Path, trace: States) -> None:
    run = quick(data, tmp_path / "run", epochs=4, late=2)
    assert sorted(path.name for path in (tmp_path / "run").glob("epoch-*")) == ["epoch-3", "epoch-4"]
    assert [s.step for s in run.snapshots] == [3 * STEPS, 4 * STEPS]
    for snapshot in run.snapshots:
        assert same(weights(snapshot.checkpoint), trace[snapshot.step - 1])


def test_a_run_that_ends_early_has_its_own_last_epochs(data: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("tl_kit.training.loop.better", lambda *_: False)
    run = quick(data, tmp_path / "run", epochs=9, patience=3, late=2, schedule="constant")
    assert run.epochs == 4
    assert sorted(path.name for path in (tmp_path / "run").glob("epoch-*")) == ["epoch-3", "epoch-4"]


def test_ctrl_c_leaves_the_snapshots_that_are_there_as_checkpoints(
    data: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    interrupt(monkeypatch, at=7)
    run = quick(data, tmp_path / "run", snapshots=2, **CYCLES)
    assert run.status == "interrupted"
    assert [s.step for s in run.snapshots] == [6]
    assert load_checkpoint(Path(run.snapshots[0].checkpoint)).meta["status"] == "finished"


def test_under_an_ema_a_snapshot_is_the_average_at_that_step(data: Path, tmp_path: Path, trace: States) -> None:
    ema = RegularizationConfig(ema=0.9)
    run = quick(data, tmp_path / "run", snapshots=2, regularization=ema, **CYCLES, **pretrained(data))
    name = "conv1.weight" if "conv1.weight" in trace[0] else next(iter(trace[0]))
    mean = torch.zeros_like(trace[0][name], dtype=torch.float64)
    for step, state in enumerate(trace, start=1):
        share = min(0.9, 1 - step ** (-2 / 3))
        mean = share * mean + (1 - share) * state[name].double()
        if step in (6, 12):
            found = weights(run.snapshots[step // 6 - 1].checkpoint)[name]
            torch.testing.assert_close(found.double(), mean, rtol=1e-5, atol=1e-6)


def averaging(data: Path, out: Path, **options: Any) -> tl_kit.FinetuneResult:
    """Without the guard, which would average the average with the head."""
    settings = {"epochs": 4, "schedule": "constant", "regularization": RegularizationConfig(swa=True)}
    settings |= {"guard": UNGUARDED}
    return quick(data, out, **(settings | pretrained(data) | options))


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Whether validation finds the best epoch better than the average."""
    return lambda answer: monkeypatch.setattr(along, "better", lambda *_: answer)


@pytest.mark.parametrize("policy", ["full", "last:2"])
def test_swa_is_the_mean_of_the_weights_at_the_ends_of_the_later_epochs(
    data: Path, tmp_path: Path, trace: States, judged: Callable[[bool], None], policy: str
) -> None:
    judged(False)
    run = averaging(data, tmp_path / "run", policy=policy, swa=SwaConfig(start=0.25))
    assert run.swa is not None
    assert (run.swa["count"], run.swa["kept"]) == (3, True)
    found, model = weights(run.checkpoint), load_checkpoint(Path(run.checkpoint)).model
    ends = [trace[epoch * STEPS - 1] for epoch in (2, 3, 4)]
    for name, _ in model.named_parameters():
        expected = torch.stack([state[name].double() for state in ends]).mean(0)
        torch.testing.assert_close(found[name].double(), expected, rtol=1e-5, atol=1e-7)
    assert run.val == run.swa["val"]
    fp32 = RuntimeConfig(precision="fp32")
    assert tl_kit.evaluate(run.checkpoint, data, split="val", runtime=fp32).metrics == run.val
    assert run.audit["ok"]


@pytest.mark.parametrize("keep", ["last", "best"])
def test_swa_says_which_epoch_the_average_is_compared_with(data: Path, tmp_path: Path, keep: str) -> None:
    listener = Listener()
    averaging(data, tmp_path / "run", keep_epoch=keep, epochs=2, reporter=listener)
    (line,) = [line for line in listener.messages if line.startswith("swa: ")]
    assert f"the {keep} epoch (val accuracy" in line


def test_swa_gets_batchnorm_statistics_of_its_own_where_they_train(
    data: Path, tmp_path: Path, trace: States, judged: Callable[[bool], None]
) -> None:
    judged(False)
    swa = averaging(data, tmp_path / "run", policy="last:2")
    found, before = weights(swa.checkpoint), weights(data.parent / "pretrained")
    counters = [name for name in found if name.endswith("num_batches_tracked")]
    new = {name for name in counters if found[name] == STEPS and before[name] != found[name]}
    old = {name for name in counters if torch.equal(found[name], before[name])}
    assert new, "one pass of three batches"
    assert old
    assert new | old == set(counters)
    assert all(found[name].dtype == torch.int64 for name in counters)
    for name in new:
        mean = name.replace("num_batches_tracked", "running_mean")
        assert not torch.equal(found[mean], trace[-1][mean])
    kept = averaging(data, tmp_path / "frozen", policy="last:2", batchnorm="frozen")
    after = weights(kept.checkpoint)
    assert all(torch.equal(after[n], before[n]) for n in after if "running_" in n or "num_batches" in n)


def test_an_average_that_is_worse_on_validation_is_not_kept(
    data: Path, tmp_path: Path, judged: Callable[[bool], None]
) -> None:
    usual = averaging(data, tmp_path / "usual", regularization=RegularizationConfig(), patience=4)
    judged(True)
    run = averaging(data, tmp_path / "run")
    assert run.swa is not None
    assert run.swa["kept"] is False
    assert run.swa["best_epoch_val"] == usual.val == run.val
    assert same(weights(run.checkpoint), weights(usual.checkpoint))


def test_an_average_of_one_epoch_without_batchnorm_of_its_own_is_that_epoch(
    data: Path, tmp_path: Path, judged: Callable[[bool], None]
) -> None:
    judged(False)
    run = averaging(data, tmp_path / "run", swa=SwaConfig(start=0.9), batchnorm="frozen", late=1)
    assert run.swa is not None
    assert run.swa["count"] == 1
    assert same(weights(run.checkpoint), weights(run.snapshots[0].checkpoint))


def test_without_a_schedule_of_the_users_the_rate_stays(data: Path, tmp_path: Path) -> None:
    listener = Listener()
    run = quick(
        data,
        tmp_path / "run",
        epochs=6,
        lr=0.1,
        loop=LoopConfig(warmup_epochs=0.0, patience=1),
        regularization=RegularizationConfig(swa=True),
        swa=SwaConfig(start=0.5),
        reporter=listener,
    )
    rates = [json.loads(line)["lr"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rates == [0.1] * 6, "nothing ends the run early: what is averaged comes last"
    assert run.swa is not None
    assert run.swa["count"] == 3
    assert sum(text.startswith("swa: the average of 3 states (val accuracy ") for text in listener.messages) == 1


def test_under_a_cyclic_rate_the_ends_of_the_later_cycles_are_averaged(data: Path, tmp_path: Path) -> None:
    run = averaging(data, tmp_path / "run", schedule="cyclic", snapshots=4, swa=SwaConfig(start=0.5))
    assert run.swa is not None
    assert run.swa["count"] == 2
    assert [s.step for s in run.snapshots] == [3, 6, 9, 12]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"snapshots": 0}, "--snapshots 0: must be at least 1"),
        ({"snapshots": 2, "schedule": "cosine"}, "--schedule cosine has none"),
        ({"snapshots": 2, "schedule_options": ("cycles=3",)}, "--schedule-opt says 3 cycles"),
        ({"snapshots": 2, "patience": 2}, "--snapshots: patience could end"),
        ({"snapshots": 8}, "--snapshots 8: 12 steps after the warm-up make no such number of even cycles"),
        ({"snapshots": 11}, "--snapshots 11: 12 steps after the warm-up make no such"),
        ({"schedule": "cyclic", "schedule_options": ("cycles=12",)}, "--schedule-opt cycles: 12 steps after the"),
        ({"schedule": "cyclic", "schedule_options": ("cycles=99",)}, "--schedule-opt cycles: 12 steps after the"),
        ({"late": 5}, "--late 5: the run has 4 epochs"),
        ({"late": -1}, "--late -1: must be at least 1"),
        ({"regularization": RegularizationConfig(swa=True, ema=0.9)}, "--swa: --ema averages"),
        ({"swa": SwaConfig(start=1.0)}, "SwaConfig.start 1.0: must be at least 0 and below 1"),
        ({"policy": "head", "optimizer": "lbfgs", "epochs": None, "late": 1}, "--late: the head that lbfgs"),
        (
            {"policy": "head", "optimizer": "lbfgs", "epochs": None, "regularization": RegularizationConfig(swa=True)},
            "--swa: the head that lbfgs fits in closed form has none",
        ),
    ],
)
def test_what_cannot_be_is_one_line(data: Path, tmp_path: Path, options: dict[str, Any], words: str) -> None:
    settings: dict[str, Any] = {"epochs": 4, "loop": LoopConfig(warmup_epochs=0.0)}
    if options.get("optimizer") == "lbfgs":
        settings["loop"] = LoopConfig()
    with pytest.raises(ConfigError) as caught:
        quick(data, tmp_path / "run", **(settings | options))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()

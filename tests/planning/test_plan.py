"""A plan says what the run then does, counts the work that the run has, and leaves nothing behind."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import MODEL, NEARLY_SQUARE, UNGUARDED, Listener, quick, settings_of, write_images
from tl_kit import FinetuneConfig, FinetuneResult, cross_validate, finetune, finetune_members, plan
from tl_kit.config import CacheConfig, DistillConfig, GuardConfig, LoopConfig, RuntimeConfig
from tl_kit.errors import ConfigError, PolicyError
from tl_kit.optimization.cases import AS_GIVEN
from tl_kit.planning.trial import Rates
from tl_kit.storage.checkpoint import read_meta

LOOP = LoopConfig(epochs=3, least_steps=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("planning") / "images", images=15, size=NEARLY_SQUARE)


@pytest.fixture(scope="module")
def pretrained(data: Path) -> Path:
    out = data.parent / "pretrained"
    quick(data, out)
    return out


def config_for(data: Path, pretrained: Path, cache: Path, **options: Any) -> FinetuneConfig:
    base = FinetuneConfig(
        model=MODEL,
        data=data,
        weights=str(pretrained),
        img_size=32,
        batch_size=8,
        loop=LOOP,
        runtime=RuntimeConfig(precision="fp32"),
        cache=CacheConfig(directory=cache),
    )
    return replace(base, **options)


def run(config: FinetuneConfig, out: Path) -> FinetuneResult:
    return finetune(replace(config, out=out))


@pytest.mark.parametrize("policy", ["auto", "head", "last:2", "full", "lp-ft", "lp-ft:2", "gradual"])
def test_the_run_does_what_the_plan_says(data: Path, pretrained: Path, tmp_path: Path, policy: str) -> None:
    config = config_for(data, pretrained, tmp_path / "cache", policy=policy)
    found = plan(config)
    result = run(config, tmp_path / "run")
    assert found.policy == result.policy
    done = settings_of(tmp_path / "run")
    if found.settings:
        for name in ("optimizer", "lr", "epochs", "batch_size", "weight_decay", "augment", "batchnorm", "schedule"):
            assert found.settings[name] == done[name], name
        chosen = {choice.name: choice.value for choice in found.choices}
        assert (chosen["schedule"], chosen["patience"]) == (done["schedule"], f"{done['patience']} epochs")
        assert (chosen["class balance"], chosen["best epoch by"]) == (done["balance"], done["select"])
        assert chosen["epoch kept"] == done["keep_epoch"] == "last"
        assert found.steps == result.epochs * 4  # 27 images in batches of 8
    else:
        assert result.epochs == 0


def test_nothing_is_left_behind_but_the_cache(
    data: Path, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plan(config_for(data, pretrained, tmp_path / "cache", policy="last:2"))
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_a_plan_changes_nothing_about_the_run(data: Path, pretrained: Path, tmp_path: Path) -> None:
    weights = []
    for name in ("planned", "plain"):
        config = config_for(data, pretrained, tmp_path / f"cache-{name}", policy="lp-ft")
        if name == "planned":
            plan(config)
        weights.append((Path(run(config, tmp_path / name).checkpoint) / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]


def test_what_the_cache_holds_costs_nothing(data: Path, pretrained: Path, tmp_path: Path) -> None:
    config = config_for(data, pretrained, tmp_path / "cache", policy="last:2")
    before = plan(config).estimate.stages
    run(config, tmp_path / "run")
    after = plan(config).estimate.stages
    assert before["features"] > 0
    assert before["data"] > 0
    assert after["features"] == after["data"] == 0
    assert after["train"] > 0


@pytest.fixture
def unit_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kind of work takes a time of its own, so that a sum tells how often each was counted."""
    rates = Rates(decode=1.0, row=10.0, step=100.0, score=1000.0, save=0.0, pixel_bytes={False: 5.0, True: 3.0})
    monkeypatch.setattr("tl_kit.planning.estimate.gradient_rates", lambda *_args, **_options: rates)
    monkeypatch.setattr("tl_kit.planning.estimate.closed_form_rates", lambda *_args: rates)


@pytest.mark.usefixtures("unit_rates")
@pytest.mark.parametrize("epochs", [1, 6])
def test_all_layers_cost_steps_and_validation_every_epoch(
    data: Path, pretrained: Path, tmp_path: Path, epochs: int
) -> None:
    """27 images to train on, 9 to validate on, 9 to test on; batches of 8."""
    config = config_for(data, pretrained, tmp_path / "cache", policy="full", epochs=epochs, guard=UNGUARDED)
    stages = plan(config).estimate.stages
    assert stages["data"] == 27 + 9 + 9
    assert stages["features"] == 0
    assert stages["train"] == epochs * (4 * 100 + 9 * 1000)
    assert stages["evaluate"] == (9 + 9) * 1000


@pytest.mark.usefixtures("unit_rates")
def test_a_frozen_part_costs_one_pass_over_each_view(data: Path, pretrained: Path, tmp_path: Path) -> None:
    config = config_for(data, pretrained, tmp_path / "cache", policy="last:2", epochs=6, guard=UNGUARDED)
    config = replace(config, cache=replace(config.cache, views=2))
    stages = plan(config).estimate.stages
    assert stages["data"] == 27 + 9 + 9
    assert stages["features"] == (2 * 27 + 9 + 9) * 10
    assert stages["train"] == 6 * (4 * 100 + 9 * 1000)


@pytest.mark.usefixtures("unit_rates")
def test_phases_add_up_and_the_last_one_is_evaluated(data: Path, pretrained: Path, tmp_path: Path) -> None:
    config = config_for(data, pretrained, tmp_path / "cache", policy="gradual:2", epochs=6, guard=UNGUARDED)
    stages = plan(config).estimate.stages
    assert stages["train"] >= 6 * (4 * 100 + 9 * 1000)  # and the head, which is fitted first
    assert stages["train"] < 7 * (4 * 100 + 9 * 1000)
    assert stages["evaluate"] == (9 + 9) * 1000
    assert stages["features"] >= 3 * 27 * 10, "three cuts, of each its own rows"


@pytest.mark.usefixtures("unit_rates")
def test_a_guarded_run_costs_a_head_and_four_more_networks_to_validate(
    data: Path, pretrained: Path, tmp_path: Path
) -> None:
    guarded, alone = (
        plan(config_for(data, pretrained, tmp_path / f"{n}", policy="full", epochs=2, guard=guard)).estimate.stages
        for n, guard in enumerate((GuardConfig(), UNGUARDED))
    )
    assert guarded["features"] == alone["features"], "the head is fitted to the training images' alone"
    assert guarded["evaluate"] - alone["evaluate"] == 4 * 9 * 1000
    assert 0 < guarded["train"] - alone["train"] < 100, "the fits"


def test_each_choice_has_its_figures(data: Path, pretrained: Path, tmp_path: Path) -> None:
    found = plan(config_for(data, pretrained, tmp_path / "cache", policy="last:2"))
    assert [choice.name for choice in found.choices] == [
        "policy",
        "crop mode",
        "learning rate",
        "schedule",
        "optimizer",
        "weight decay",
        "epochs",
        "patience",
        "epoch kept",
        "best epoch by",
        "batch size",
        "class balance",
        "augmentation",
        "BatchNorm",
    ]
    assert all(choice.reason for choice in found.choices)
    assert found.facts.images == 27
    assert found.facts.probes[-1].stage == "head input"
    assert json.loads(json.dumps(found.to_dict()))["facts"]["per_class"] == 9


@pytest.mark.parametrize("options", [{"schedule": "constant"}, {"snapshots": 2}], ids=["constant", "snapshots"])
def test_schedule_and_patience_are_those_of_the_rules(
    data: Path, pretrained: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    """Of 13 epochs at a rate that does not decay, six without a better one end the run: 5 of 12, rounded up."""
    config = config_for(data, pretrained, tmp_path / "cache", policy="last:1", epochs=13, loop=LoopConfig(), **options)
    found = {choice.name: (choice.value, choice.reason) for choice in plan(config).choices}
    run(config, tmp_path / "run")
    done = settings_of(tmp_path / "run")
    if "snapshots" in options:
        assert found["schedule"] == ("cyclic", "a snapshot at the end of each cycle")
        assert found["patience"] == ("13 epochs", "all epochs: a run under cyclic does its best work at the end")
        assert (done["schedule"], done["patience"]) == ("cyclic", 13)
    else:
        assert found["schedule"] == ("constant", AS_GIVEN)
        assert found["patience"][0] == "6 epochs"
        assert found["patience"][1].startswith("the rate of constant has no end of its own")
        assert (done["schedule"], done["patience"]) == ("constant", 6)


@pytest.mark.parametrize("policy", ["head", "last:1"])
def test_uneven_classes_show_in_the_plan_and_in_the_run(pretrained: Path, tmp_path: Path, policy: str) -> None:
    images = write_images(tmp_path / "images", images=5)
    write_images(images, ("red",), images=30, seed=1)
    config = config_for(images, pretrained, tmp_path / "cache", policy=policy)
    found = {choice.name: (choice.value, choice.reason) for choice in plan(config).choices}
    assert found["class balance"][0] == "loss"
    assert found["class balance"][1].endswith(" times as many in the largest (from 3): every class counts the same")
    assert found.get("best epoch by", ("balanced accuracy",))[0] == "balanced accuracy"
    run(config, tmp_path / "run")
    done = settings_of(tmp_path / "run")
    assert (done["balance"], done["select"]) == ("loss", "nll" if policy == "head" else "balanced_accuracy")


@pytest.mark.parametrize(
    "runs", [{"folds": 3}, {"members": 3, "vary": "folds"}, {"members": 3, "vary": "bootstrap"}], ids=str
)
def test_a_series_is_planned_by_the_images_of_its_first_run(
    runs: dict[str, Any], data: Path, pretrained: Path, tmp_path: Path
) -> None:
    config, listener = config_for(data, pretrained, tmp_path / "cache", policy="full", epochs=1), Listener()
    found = plan(config, **runs, reporter=listener)
    made = {"out": tmp_path / "runs"}
    if "folds" in runs:
        first = Path(cross_validate(replace(config, **made), **runs).folds[0].checkpoint)
    else:
        first = Path(finetune_members(replace(config, **made), **runs).members[0].checkpoint)
    images = read_meta(first)["data"]["images"]
    assert found.facts.images == images["train"]
    assert found.settings["augment"] == settings_of(first)["augment"]
    told = [text for text in listener.messages if text.startswith("the plan is that of ")]
    assert len(told) == 1
    assert f"{images['train']} train" in told[0]


@pytest.mark.parametrize(
    ("runs", "options", "text"),
    [
        ({"members": 1, "vary": "folds"}, {}, "--members 1: must be at least 2"),
        ({"members": 1, "vary": "bootstrap"}, {}, "--members 1: must be at least 2"),
        ({"folds": 1}, {}, "--folds 1"),
        ({"folds": 3}, {"epochs": 0}, "--epochs 0"),
        ({"folds": 3}, {"distill": DistillConfig(teacher=Path("t"))}, "--folds: a teacher has seen"),
    ],
)
def test_mistakes_of_a_series_are_told_before_the_scan(
    runs: dict[str, Any], options: dict[str, Any], text: str, data: Path, pretrained: Path, tmp_path: Path
) -> None:
    listener = Listener()
    config = config_for(data, pretrained, tmp_path / "cache", **{"policy": "full", **options})
    with pytest.raises(ConfigError) as caught:
        plan(config, **runs, reporter=listener)
    assert text in str(caught.value)
    assert listener.messages == []


def test_without_pretrained_weights_nothing_is_probed_and_all_layers_train(data: Path, tmp_path: Path) -> None:
    listener = Listener()
    config = config_for(data, Path("none"), tmp_path / "cache")
    found = plan(config, reporter=listener)
    assert found.policy == "full"
    assert found.facts.probes == ()
    assert found.facts.domain == "unknown"
    assert any("no pretrained weights" in message for message in listener.messages)


@pytest.mark.usefixtures("unit_rates")
def test_beside_a_longer_run_stands_what_the_head_alone_takes(data: Path, pretrained: Path, tmp_path: Path) -> None:
    """A run of all layers costs its steps too; the head's own plan costs the same as it says."""
    config = config_for(data, pretrained, tmp_path / "cache", policy="lp-ft", epochs=2)
    config = replace(config, cache=CacheConfig(size_gb=0.0))
    longer = plan(config)
    head = plan(replace(config, policy="head", epochs=None))
    assert head.estimate.head_alone is None
    assert longer.estimate.head_alone is not None
    assert longer.estimate.seconds - longer.estimate.head_alone > 2 * 4 * 1000, "two epochs of four steps"
    own = head.estimate.seconds - head.estimate.stages["prepare"]
    assert longer.estimate.head_alone - longer.estimate.stages["prepare"] == pytest.approx(own, abs=9)


@pytest.mark.usefixtures("unit_rates")
@pytest.mark.parametrize(("policy", "images"), [("auto", 27), ("head", 27 + 9 + 9)])
def test_a_head_is_timed_where_no_cache_has_its_features(
    data: Path, pretrained: Path, tmp_path: Path, policy: str, images: int
) -> None:
    """A head that others start from, or are compared with, is fitted to training images; one alone is scored too."""
    config = config_for(data, pretrained, tmp_path / "cache", policy=policy)
    found = plan(replace(config, cache=CacheConfig(size_gb=0.0)))
    assert found.estimate.stages["features"] == images * 10


@pytest.mark.usefixtures("unit_rates")
def test_a_head_is_timed_where_nothing_was_probed(data: Path, tmp_path: Path) -> None:
    found = plan(config_for(data, Path("none"), tmp_path / "cache", policy="head"))
    assert found.estimate.stages["features"] == (27 + 9 + 9) * 10


def test_what_trains_is_what_trains_in_the_last_epoch(data: Path, pretrained: Path, tmp_path: Path) -> None:
    """Of gradual:2 in four epochs, two groups and no more."""
    loop = replace(LOOP, layer_decay=0.5)
    config = config_for(data, pretrained, tmp_path / "cache", policy="gradual:2", epochs=4, loop=loop)
    policy, _, rate, *_ = plan(config).choices
    trained = run(config, tmp_path / "run").trainable_parameters
    assert policy.value.startswith(f"gradual:2, {trained:,} of ")
    assert rate.reason.endswith("down to 0.005"), rate.reason


def test_mistakes_are_those_of_finetune(data: Path, pretrained: Path, tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="did you mean lp-ft"):
        plan(config_for(data, pretrained, tmp_path / "cache", policy="lpft"))


def test_from_random_weights_the_plan_says_for_how_many_steps(data: Path, pretrained: Path, tmp_path: Path) -> None:
    loop = LoopConfig(epochs=3, scratch_steps=9)
    found = plan(config_for(data, pretrained, tmp_path / "cache", weights="none", loop=loop))
    (chosen,) = (choice for choice in found.choices if choice.name == "epochs")
    assert chosen.reason.endswith(("for 9 steps", "are 9 steps or more"))


def test_a_head_by_gradient_has_epochs_of_its_own(data: Path, pretrained: Path, tmp_path: Path) -> None:
    found = plan(config_for(data, pretrained, tmp_path / "cache", policy="head", lr=0.001))
    (chosen,) = (choice for choice in found.choices if choice.name == "epochs")
    assert chosen.value.startswith(f"{LOOP.head_epochs} (")
    assert chosen.reason == f"{LOOP.head_epochs} where the head alone trains"

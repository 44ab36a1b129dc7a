"""Runs choose optimizer, rate and decay by whether BatchNorm follows what they train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.helpers import NEARLY_SQUARE, quick, quick_config, settings_of, weights, write_images
from tl_kit import plan
from tl_kit.config import LoopConfig, OptimizerDefaults
from tl_kit.finetuning.build_task import groups_of
from tl_kit.finetuning.preparation import prepare
from tl_kit.finetuning.settings import resolve
from tl_kit.reporting import SILENT

DEFAULTS = OptimizerDefaults()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("decay") / "images", size=NEARLY_SQUARE)


@pytest.fixture(scope="module")
def vit(data: Path) -> Path:
    quick(data, data.parent / "vit", model="test_vit", epochs=1)
    return data.parent / "vit"


def settings(data: Path, **options: Any) -> dict[str, Any]:
    run = prepare(quick_config(data, data.parent / "none", **{"loop": LoopConfig(), **options}), SILENT, dry=True)
    try:
        return resolve(run).to_dict()
    finally:
        run.cleanup.close()


@pytest.mark.parametrize("policy", ["full", "last:2", "lp-ft", "gradual"])
def test_a_network_without_batchnorm_takes_adamw(data: Path, vit: Path, policy: str) -> None:
    found = settings(data, model="test_vit", weights=str(vit), policy=policy)
    assert found["optimizer"] == "adamw"
    assert found["lr"] == pytest.approx(1e-4)
    assert found["weight_decay"] == 0.05
    assert found["layer_decay"] == 0.9
    assert settings(data, model="test_vit", weights=str(vit), policy=policy, epochs=30)["warmup_epochs"] == 3


def test_no_weight_under_frozen_statistics_is_decayed_away(data: Path) -> None:
    """Rate times decay times steps, ten times with momentum: whatever rate the user gives."""
    folder = data.parent / "resnet"
    quick(data, folder, model="test_resnet", epochs=1)
    found = settings(data, weights=str(folder), batchnorm="frozen", lr=0.3, epochs=400, model="test_resnet")
    assert 0.3 * 10 * found["weight_decay"] * 400 * 3 == pytest.approx(DEFAULTS.most_shrinking)
    by_batch = settings(data, weights=str(folder), batchnorm="train", lr=0.3, epochs=400, model="test_resnet")
    assert by_batch["weight_decay"] == 0.05


def test_onecycle_has_its_own_warmup(data: Path, vit: Path) -> None:
    found = settings(data, model="test_vit", weights=str(vit), schedule="onecycle", epochs=20)
    assert found["warmup_epochs"] == LoopConfig.warmup_epochs


def test_random_weights_and_heads_too(data: Path, vit: Path) -> None:
    assert settings(data, model="test_vit")["optimizer"] == "adamw"
    assert settings(data, model="test_vit")["lr"] == pytest.approx(1e-3)
    assert settings(data, model="test_vit", weights=str(vit), policy="head")["lr"] == pytest.approx(1e-3)


@pytest.mark.parametrize("optimizer", ["momentum", "sgd", "nesterov"])
@pytest.mark.parametrize("epochs", [2, 500])
@pytest.mark.parametrize("lr", [None, 0.1, "auto"])
def test_momentum_that_was_asked_for_destroys_nothing(
    data: Path, vit: Path, optimizer: str, epochs: int, lr: Any
) -> None:
    found = settings(data, model="test_vit", weights=str(vit), optimizer=optimizer, epochs=epochs, lr=lr)
    carried = 1 if optimizer == "sgd" else 10
    highest = found["lr"] * (10 if lr == "auto" else 1)
    assert 0 < found["weight_decay"] <= DEFAULTS.frozen_norm_decay
    steps = epochs * 3  # 24 images in batches of 8
    assert highest * carried * found["weight_decay"] * steps <= DEFAULTS.most_shrinking * 1.001


def test_what_the_user_says_stays(data: Path, vit: Path) -> None:
    network = {"model": "test_vit", "weights": str(vit)}
    assert settings(data, **network, loop=LoopConfig(weight_decay=0.3))["weight_decay"] == 0.3
    assert settings(data, **network, loop=LoopConfig(optimizer="sgd"))["optimizer"] == "sgd"
    assert settings(data, **network, optimizer="lion")["optimizer"] == "lion"


def test_batchnorm_as_it_was(data: Path) -> None:
    found = settings(data)
    assert (found["optimizer"], found["lr"], found["weight_decay"]) == ("momentum", 0.1, DEFAULTS.scratch_decay)
    assert found["bare_decay"] is None


def test_squeeze_and_excite_gets_a_decay_of_its_own(data: Path) -> None:
    config = quick_config(data, data.parent / "none", model="test_efficientnet", epochs=500, loop=LoopConfig())
    run = prepare(config, SILENT, dry=True)
    try:
        found = resolve(run)
        assert found.optimizer == "momentum"
        assert found.bare_decay is not None
        groups = groups_of(run, found, {name for name, _ in run.model.named_parameters()})
    finally:
        run.cleanup.close()
    by_decay = {group["weight_decay"]: group["param_names"] for group in groups}
    assert set(by_decay) == {0.0, found.weight_decay, found.bare_decay}
    classifier = {name for name in by_decay[found.weight_decay] if name.startswith("classifier")}
    assert all(".se." in name for name in by_decay[found.bare_decay])
    assert not any(".se." in name for name in by_decay[found.weight_decay])
    assert classifier


def test_plan_says_which_and_why(data: Path, vit: Path) -> None:
    made = plan(quick_config(data, data.parent / "none", model="test_vit", weights=str(vit)))
    choices = {choice.name: choice for choice in made.choices}
    assert choices["optimizer"].value == "adamw"
    assert "BatchNorm follows 0 of " in choices["optimizer"].reason
    assert choices["weight decay"].value == "0.05"
    assert choices["weight decay"].reason == "the usual one of adamw"
    assert "0.9 for each layer below the head" in choices["learning rate"].reason


@pytest.mark.usefixtures("one_thread")
def test_a_small_vit_learns_by_the_defaults(data: Path, vit: Path, tmp_path: Path) -> None:
    run = quick(data, tmp_path / "run", model="test_vit", weights=str(vit), epochs=8, loop=LoopConfig())
    assert settings_of(tmp_path / "run")["optimizer"] == "adamw"
    assert run.val is not None
    assert run.val["accuracy"] > 0.6
    before, after = weights(vit), weights(tmp_path / "run")
    for name, tensor in before.items():
        if name.endswith("weight") and tensor.ndim > 1 and not name.startswith("head."):
            assert 0.5 < float(after[name].norm() / tensor.norm()) < 2, name

"""BatchNorm's statistics: kept where pretrained features rely on them, and never with a decay that nothing undoes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers import NEARLY_SQUARE, UNGUARDED, quick, settings_of, write_images
from tl_kit.config import LoopConfig, OptimizerDefaults

PRETRAINED_POLICIES = ["last:1", "last:2", "full", "lp-ft", "lp-ft:2", "gradual"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("batchnorm") / "images", size=NEARLY_SQUARE)


@pytest.fixture(scope="module")
def pretrained(data: Path) -> Path:
    out = data.parent / "pretrained"
    quick(data, out)
    return out


def statistics(folder: Path) -> dict[str, torch.Tensor]:
    tensors = load_file(folder / "model.safetensors")
    return {name: tensor for name, tensor in tensors.items() if "running_" in name}


@pytest.mark.parametrize("policy", ["full", "lp-ft", "gradual"])
def test_pretrained_statistics_stay_bit_for_bit_and_the_audit_counts_them(
    data: Path, pretrained: Path, tmp_path: Path, policy: str
) -> None:
    run = quick(data, tmp_path / "run", policy=policy, weights=str(pretrained), guard=UNGUARDED)
    before, after = statistics(pretrained), statistics(tmp_path / "run")
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert run.audit["frozen_tensors"] >= len(before)
    scales = load_file(tmp_path / "run" / "model.safetensors")["bn1.weight"]
    if policy != "gradual":  # which has not come to the stem in two epochs
        assert not torch.equal(scales, load_file(pretrained / "model.safetensors")["bn1.weight"]), "the scales train"


def test_statistics_move_where_the_run_says_so(data: Path, pretrained: Path, tmp_path: Path) -> None:
    run = quick(data, tmp_path / "run", weights=str(pretrained), batchnorm="train", guard=UNGUARDED)
    before, after = statistics(pretrained), statistics(tmp_path / "run")
    assert all(not torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert run.audit["frozen_tensors"] == 0


def test_random_weights_have_no_statistics_to_keep(pretrained: Path) -> None:
    assert settings_of(pretrained)["batchnorm"] == "train"
    assert all(tensor.abs().sum() > 0 for tensor in statistics(pretrained).values())


@pytest.mark.parametrize("policy", PRETRAINED_POLICIES)
@pytest.mark.parametrize("optimizer", [None, "sgd", "nesterov", "adamw"])
def test_no_default_joins_frozen_statistics_with_a_decay_that_shrinks_the_outputs(
    data: Path, pretrained: Path, tmp_path: Path, policy: str, optimizer: str | None
) -> None:
    """Rate times decay times 200 steps (times ten with momentum) tells how far weights shrink; 3 ends at chance."""
    quick(
        data,
        tmp_path / "run",
        policy=policy,
        weights=str(pretrained),
        optimizer=optimizer,
        epochs=1,
        loop=LoopConfig(),
        guard=UNGUARDED,
    )
    found = settings_of(tmp_path / "run")
    if found.get("batchnorm") != "frozen":
        return
    lr, decay = found["lr"], found["weight_decay"]
    assert isinstance(lr, float)
    assert isinstance(decay, float)
    carried = 10 if found["optimizer"] in {"momentum", "nesterov"} else 1
    assert lr * decay * carried * LoopConfig().least_steps <= 0.25


def test_the_rate_and_the_decay_follow_the_statistics(data: Path, pretrained: Path, tmp_path: Path) -> None:
    defaults = OptimizerDefaults()
    for mode, scale, decay in (
        ("frozen", defaults.frozen_norm_scale, defaults.frozen_norm_decay),
        ("train", defaults.clipped_scale, defaults.weight_decays["momentum"]),
    ):
        quick(data, tmp_path / mode, weights=str(pretrained), batchnorm=mode, epochs=1, guard=UNGUARDED)
        found = settings_of(tmp_path / mode)
        assert found["batchnorm"] == mode
        assert found["lr"] == pytest.approx(defaults.learning_rates["momentum"] * scale)
        assert found["weight_decay"] == decay


@pytest.mark.parametrize(("schedule", "stops"), [("cosine", False), ("constant", True), ("plateau", True)])
def test_a_rate_that_decays_to_its_end_is_not_stopped_before(
    data: Path, tmp_path: Path, schedule: str, stops: bool
) -> None:
    run = quick(data, tmp_path / "run", schedule=schedule, epochs=9, lr=1e-12, loop=LoopConfig(patience=2))
    assert (run.epochs < 9) == stops

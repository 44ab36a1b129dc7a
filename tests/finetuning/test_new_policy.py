"""A policy of one's own: one entry of ``POLICIES``, and the whole way from the plan to the ensemble knows it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.helpers import MODEL, NEARLY_SQUARE, UNGUARDED, quick, quick_config, settings_of, weights, write_images
from tl_kit import EnsembleConfig, ensemble, plan
from tl_kit.config import HeadConfig, LoopConfig
from tl_kit.errors import ConfigError
from tl_kit.freezing.policies import POLICIES, Layers, Policy

LOOP = LoopConfig(warmup_epochs=0.0, epochs=2, least_steps=1)


def norms(layers: Layers, *, epoch: int, depth: int | None) -> frozenset[str]:
    """The classifier, and scale and shift of every normalization layer (Frankle et al. 2021)."""
    found = {
        f"{prefix}.{name}"
        for prefix, module in layers.model.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        for name, _ in module.named_parameters(recurse=False)
    }
    return layers.classifier | found


def every_other(layers: Layers, *, epoch: int, depth: int | None) -> frozenset[str]:
    """Every ``depth``-th group from the head down, and from the next epoch on all others too."""
    groups = [*reversed(layers.groups)]
    return layers.classifier.union(*groups[:: depth if epoch == 0 else 1])


@pytest.fixture(autouse=True)
def entries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(POLICIES, "norms", Policy(name="norms", trains=norms, keeps_statistics=True))
    monkeypatch.setitem(
        POLICIES,
        "every",
        Policy(
            name="every",
            trains=every_other,
            depth=2,
            depth_name="N",
            depth_meaning="a number of groups",
            fits_head_first=True,
            grows=True,
        ),
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("policies") / "images", size=NEARLY_SQUARE)


@pytest.fixture(scope="module")
def pretrained(data: Path) -> Path:
    quick(data, data.parent / "pretrained")
    return data.parent / "pretrained"


def test_only_the_normalization_layers_train(data: Path, pretrained: Path, tmp_path: Path) -> None:
    options = {"policy": "norms", "weights": str(pretrained), "loop": LOOP, "epochs": None, "guard": UNGUARDED}
    planned = plan(quick_config(data, tmp_path / "none", **options))
    run = quick(data, tmp_path / "run", **options)
    before, after = weights(pretrained), weights(tmp_path / "run")
    moved = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    trained = [entry.replace("running_mean", "bias") for entry in before if "running_mean" in entry]
    assert {*trained, "fc.weight", "fc.bias"} <= moved
    assert moved <= {*trained, *(name.replace("bias", "weight") for name in trained), "fc.weight", "fc.bias"}
    assert run.policy == planned.policy == "norms"
    assert run.audit["ok"]
    found = settings_of(tmp_path / "run")
    assert found["batchnorm"] == "frozen", "the policy keeps the statistics of few images"
    assert all(found[name] == planned.settings[name] for name in ("lr", "epochs", "optimizer", "batchnorm", "augment"))
    choices = {choice.name: choice for choice in planned.choices}
    assert choices["policy"].value.startswith("norms, ")
    assert "the pretrained statistics stay" in choices["BatchNorm"].reason


def test_a_growing_policy_with_a_fitted_head_has_its_phases(data: Path, pretrained: Path, tmp_path: Path) -> None:
    options = {"policy": "every:3", "weights": str(pretrained), "epochs": 3, "patience": 9}
    assert plan(quick_config(data, tmp_path / "none", **options)).policy == "every:3"
    run = quick(data, tmp_path / "run", **options)
    assert run.policy == "every:3"
    assert [phase["phase"] for phase in run.audit["phases"]] == ["head", "epochs 1 to 1"]
    assert run.audit["phases"][1]["frozen_tensors"] > run.audit["frozen_tensors"] == 0


def test_a_new_policy_that_trains_the_head_alone_is_fitted_in_closed_form(
    data: Path, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its options, its record and the interpolation with another member follow from the one trait."""
    monkeypatch.setitem(
        POLICIES,
        "probe",
        Policy(name="probe", trains=lambda layers, **_: layers.classifier, head_only=True),
    )
    head = HeadConfig(c=0.1)
    options = {"policy": "probe", "weights": str(pretrained), "epochs": None, "head": head, "loop": LoopConfig()}
    with pytest.raises(ConfigError, match="the head is fitted to images as evaluation sees them"):
        quick(data, tmp_path / "none", augment="strong", **options)
    run = quick(data, tmp_path / "probe", **options)
    assert run.epochs == 0
    assert run.policy == "probe"
    quick(data, tmp_path / "full", policy="full", weights=str(pretrained))
    members = (tmp_path / "probe", tmp_path / "full")
    result = ensemble(EnsembleConfig(checkpoints=members, data=data, rule="wise-ft", out=tmp_path / "ensemble"))
    assert result.receipt["rule"] == "wise-ft"
    assert json.loads((tmp_path / "probe" / "tlkit.json").read_text())["settings"]["C"] == 0.1
    assert run.model == MODEL

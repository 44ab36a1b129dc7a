"""Policies that train few parameters: low-rank adapters, biases, scales and shifts of normalization layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch

import tl_kit
from tests.helpers import NEARLY_SQUARE, UNGUARDED, quick, quick_config, same, settings_of, weights, write_images
from tests.killing import EVERY_STEP, Copies, assert_the_same, killing
from tl_kit import RegularizationConfig
from tl_kit.config import CacheConfig, LoopConfig, OptimizerDefaults, RuntimeConfig
from tl_kit.errors import ConfigError, PolicyError
from tl_kit.storage.checkpoint import load_checkpoint

POLICIES = ("lora:2", "bias", "norm")
NETWORKS = ("test_resnet", "test_vit")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = write_images(tmp_path_factory.mktemp("few") / "images", images=9, size=NEARLY_SQUARE)
    for name in NETWORKS:
        size = {"img_size": 64} if name == "test_vit" else {}
        quick(data, data.parent / name, model=name, epochs=1, **size)
    return data


def run_on(data: Path, out: Path, *, model: str = "test_resnet", **options: Any) -> tl_kit.FinetuneResult:
    size = {"img_size": 64} if model == "test_vit" else {}
    settings = {"weights": str(data.parent / model), "guard": UNGUARDED, "lr": 0.01, "epochs": 3}
    return quick(data, out, model=model, **{**settings, **size, **options})


def trains(policy: str, name: str, tensor: torch.Tensor) -> bool:
    """Whether the policy may change it, by its name and shape in these two networks."""
    if name.startswith(("fc.", "head.")):
        return True
    if policy == "bias":
        return name.endswith(".bias")
    norm = tensor.ndim == 1 and any(part in name for part in ("bn", "norm", "conv1.1.", "conv1.4.", "downsample.2."))
    if policy == "norm":
        return norm and name.endswith((".weight", ".bias"))
    return tensor.ndim > 1 and name.endswith(".weight")


@pytest.mark.parametrize("model", NETWORKS)
@pytest.mark.parametrize("policy", POLICIES)
def test_only_what_the_policy_names_moves_and_timm_opens_the_checkpoint(
    data: Path, tmp_path: Path, policy: str, model: str
) -> None:
    run = run_on(data, tmp_path / "run", policy=policy, model=model, epochs=4)
    before, after = weights(data.parent / model), weights(run.checkpoint)
    assert before.keys() == after.keys()
    moved = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    allowed = {name for name, tensor in before.items() if trains(policy, name, tensor)}
    assert moved <= allowed
    assert len(moved) > 0.7 * len(allowed)
    assert run.audit["ok"]
    assert run.audit["frozen_tensors"] >= len(before) - len(allowed)
    if policy == "lora:2":
        for name in moved - {"fc.weight", "head.weight"} - {n for n in moved if n.endswith(".bias")}:
            change = (after[name] - before[name]).flatten(1).double()
            values = torch.linalg.svdvals(change)
            assert (values > 1e-4 * values[0]).sum() <= 2, name
    opened = timm.create_model(f"local-dir:{run.checkpoint}", pretrained=True)
    assert same(dict(opened.state_dict()), after)
    fp32 = RuntimeConfig(precision="fp32")
    assert tl_kit.evaluate(run.checkpoint, data, split="test", runtime=fp32).metrics == run.test


@pytest.mark.parametrize("policy", POLICIES)
def test_the_head_is_fitted_first_and_the_number_is_that_of_what_trains(
    data: Path, tmp_path: Path, policy: str
) -> None:
    run = run_on(data, tmp_path / "run", policy=policy)
    assert run.audit["phases"][0]["phase"] == "head"
    model = load_checkpoint(tmp_path / "run").model
    sizes = {name: (p.numel(), p.shape) for name, p in model.named_parameters()}
    if policy == "lora:2":
        wide = [s for n, (_, s) in sizes.items() if trains(policy, n, torch.empty(s)) and not n.startswith("fc.")]
        expected = sum(2 * (shape[0] + shape[1:].numel()) for shape in wide)
        expected += sum(sizes[n][0] for n in ("fc.weight", "fc.bias"))
    else:
        expected = sum(size for n, (size, shape) in sizes.items() if trains(policy, n, torch.empty(shape)))
    assert run.trainable_parameters == expected


VARIANTS: dict[str, dict[str, Any]] = {
    "lora": {"policy": "lora:2"},
    "lora, ema": {"policy": "lora:2", "regularization": RegularizationConfig(ema=0.9, dropout=0.2)},
    "lora, swa and late epochs": {"policy": "lora:2", "regularization": RegularizationConfig(swa=True), "late": 1},
    "bias": {"policy": "bias"},
    "norm": {"policy": "norm"},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_killed_and_taken_up_again_it_ends_the_same(name: str, data: Path, tmp_path: Path) -> None:
    options = {"save": EVERY_STEP, "cache": CacheConfig(directory=tmp_path / "cache"), **VARIANTS[name]}
    out = tmp_path / "run"
    copies = Copies(out)
    with killing(copies):
        run_on(data, out, **options)
    whole = out.rename(tmp_path / "whole")
    tl_kit.resume(copies.restore(copies.seen - 2))
    assert_the_same(out, whole)


def test_layer_decay_makes_adapters_below_the_head_slower(data: Path, tmp_path: Path) -> None:
    """At a factor of nearly nothing only the head moves."""
    loop = LoopConfig(warmup_epochs=0.0, layer_decay=1e-6, weight_decay=0.0)
    run = run_on(data, tmp_path / "run", policy="lora:2", loop=loop)
    before, after = weights(data.parent / "test_resnet"), weights(run.checkpoint)
    for name in ("layer1.0.conv1.weight", "layer4.0.conv2.weight"):
        torch.testing.assert_close(after[name], before[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize("policy", POLICIES)
def test_they_take_the_rate_of_few_parameters_under_adamw(data: Path, tmp_path: Path, policy: str) -> None:
    run_on(data, tmp_path / "run", policy=policy, lr=None, epochs=1)
    found, defaults = settings_of(tmp_path / "run"), OptimizerDefaults()
    scale = defaults.adapter_scale if policy == "lora:2" else defaults.vector_scale
    assert (found["optimizer"], found["lr"]) == ("adamw", defaults.learning_rates["adamw"] * scale)
    assert found["batchnorm"] == "frozen"


def test_the_plan_is_the_runs(data: Path, tmp_path: Path) -> None:
    options = {"weights": str(data.parent / "test_resnet"), "policy": "lora:2", "epochs": 1}
    planned = tl_kit.plan(quick_config(data, tmp_path / "none", **options))
    run = run_on(data, tmp_path / "run", policy="lora:2", lr=None, epochs=1)
    assert planned.policy == run.policy == "lora:2"
    assert all(settings_of(tmp_path / "run")[name] == planned.settings[name] for name in ("lr", "optimizer", "epochs"))


def test_without_peft_one_line_says_what_to_install(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tl_kit.optional_packages.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'^--policy lora:8: needs peft; run pip install "tl-kit\[peft\]"$'):
        run_on(data, tmp_path / "run", policy="lora")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["l1", "l2", "l2_sp", "drop_connect"])
def test_what_is_for_weights_that_train_is_refused_for_adapters(data: Path, tmp_path: Path, name: str) -> None:
    options = RegularizationConfig(**{name: 0.1})
    with pytest.raises(ConfigError, match=f"^--{name.replace('_', '-')}: is for weights that train"):
        run_on(data, tmp_path / "run", policy="lora", regularization=options)


@pytest.mark.parametrize(
    ("policy", "model", "line"),
    [
        ("norm", "test_nfnet", "--policy norm: NormFreeNet has no normalization layer"),
        ("lora:512", "test_resnet", "--policy lora: ResNet has no linear layer or plain convolution that adapters of "),
    ],
)
def test_a_model_without_such_layers_is_one_line(
    data: Path, tmp_path: Path, policy: str, model: str, line: str
) -> None:
    with pytest.raises(PolicyError, match=f"^{line}"):
        quick(data, tmp_path / "run", policy=policy, model=model)

"""Dropout, DropConnect and stochastic depth change a run or are refused, whatever the model's head and the cut."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers import Listener, quick, write_images
from tl_kit import FinetuneConfig, finetune
from tl_kit.config import CacheConfig, LoopConfig, RegularizationConfig
from tl_kit.errors import ConfigError

SIDES = {"test_vit": 64, "test_byobnet": 32, "test_convnext": 32, "test_efficientnet": 32}
# The last group is the head, and the blocks of test_efficientnet all change their width.
WITHOUT_A_BRANCH = {(model, "last:1") for model in SIDES} | {("test_efficientnet", p) for p in ("last:2", "full")}
NO_CACHE = CacheConfig(size_gb=0)
Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), images=6)


def weights(data: Path, out: Path, model: str, **options: Any) -> Weights:
    quick(data, out, model=model, img_size=SIDES[model], epochs=1, **options)
    return load_file(out / "model.safetensors")


@pytest.fixture(scope="module")
def usual(data: Path) -> Callable[..., Weights]:
    """The weights of the run without regularization; of equal options one."""
    found: dict[str, Weights] = {}

    def run(model: str, policy: str, cache: CacheConfig | None = None) -> Weights:
        cache = cache or CacheConfig()
        key = repr((model, policy, cache))
        if key not in found:
            out = data.parent / f"usual-{len(found)}"
            found[key] = weights(data, out, model, policy=policy, cache=cache)
        return found[key]

    return run


def same(one: Weights, two: Weights) -> bool:
    return all(torch.equal(tensor, two[name]) for name, tensor in one.items())


@pytest.mark.parametrize("cache", [CacheConfig(), NO_CACHE], ids=["cache", "plain"])
@pytest.mark.parametrize("policy", ["head", "last:1"])
@pytest.mark.parametrize("model", SIDES)
def test_dropout_before_the_head_is_never_lost(
    data: Path, usual: Callable[..., Weights], tmp_path: Path, model: str, policy: str, cache: CacheConfig
) -> None:
    options = {"policy": policy, "cache": cache, "regularization": RegularizationConfig(dropout=0.5)}
    assert not same(usual(model, policy, cache), weights(data, tmp_path / "dropped", model, **options))


@pytest.mark.parametrize("model", SIDES)
def test_the_weights_of_the_head_are_dropped(
    data: Path, usual: Callable[..., Weights], tmp_path: Path, model: str
) -> None:
    options = {"policy": "head", "regularization": RegularizationConfig(drop_connect=0.5)}
    assert not same(usual(model, "head"), weights(data, tmp_path / "dropped", model, **options))


@pytest.mark.parametrize("policy", ["last:1", "last:2", "full"])
@pytest.mark.parametrize("model", SIDES)
def test_stochastic_depth_drops_something_or_is_refused(
    data: Path, usual: Callable[..., Weights], tmp_path: Path, model: str, policy: str
) -> None:
    deep = RegularizationConfig(drop_path=0.9)
    if (model, policy) in WITHOUT_A_BRANCH:
        with pytest.raises(ConfigError, match="--drop-path: no residual branch"):
            weights(data, tmp_path / "deep", model, policy=policy, regularization=deep)
        return
    assert not same(usual(model, policy), weights(data, tmp_path / "deep", model, policy=policy, regularization=deep))


@pytest.mark.parametrize("model", SIDES)
def test_every_head_is_fitted_in_closed_form(data: Path, tmp_path: Path, model: str) -> None:
    """Also where pooling and the linear layer stand in one module."""
    run = quick(data, tmp_path / "run", model=model, img_size=SIDES[model], policy="head", epochs=None)
    assert run.epochs == 0


@pytest.mark.parametrize("policy", ["lp-ft", "gradual"])
@pytest.mark.parametrize(
    "options",
    [
        {"regularization": RegularizationConfig(mixup=0.5)},
        {"regularization": RegularizationConfig(cutmix=1.0, ema=0.5)},
        {"regularization": RegularizationConfig(dropout=0.3, drop_connect=0.3, l2_sp=0.1), "weights": "pretrained"},
        {"cache": NO_CACHE},
        {"cache": CacheConfig(size_gb=1e-7)},
        {"lr": "auto", "weights": "pretrained"},
        {"optimizer": "adamw"},
    ],
)
def test_phases_go_with_every_option(data: Path, tmp_path: Path, policy: str, options: dict[str, Any]) -> None:
    if options.get("weights") == "pretrained":
        quick(data, tmp_path / "start", model="test_efficientnet")
        options = {**options, "weights": str(tmp_path / "start")}
    run = quick(data, tmp_path / "run", model="test_efficientnet", policy=policy, **options)
    assert run.audit["phases"][0]["phase"] == "head"
    assert all(phase["ok"] for phase in run.audit["phases"])


@pytest.mark.parametrize("batch_size", [2, 3])
def test_a_range_test_meets_a_batch_of_one(tmp_path: Path, batch_size: int) -> None:
    data = write_images(tmp_path / "images", images=9)  # odd numbers of training images
    run = quick(data, tmp_path / "run", lr="auto", batch_size=batch_size)
    assert run.epochs == 2


def test_second_derivatives_go_through_attention(data: Path, tmp_path: Path) -> None:
    run = quick(data, tmp_path / "run", model="test_vit", img_size=64, optimizer="adahessian", epochs=1)
    assert run.epochs == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "onecycle", "loop": LoopConfig(warmup_epochs=1.0)}, "onecycle"),
        ({"loop": LoopConfig(warmup_epochs=50.0)}, "warm-up cannot take"),
        ({"cache": CacheConfig(views=3)}, "--views"),
        ({"policy": "lp-ft", "optimizer": "momentun"}, "did you mean 'momentum'"),
        ({"policy": "lp-ft", "schedule": "cosin"}, "did you mean 'cosine'"),
        ({"policy": "head", "epochs": None, "optimizer": "newtn"}, "did you mean 'newton'"),
        ({"policy": "head", "loop": LoopConfig(layer_decay=0.5)}, "--layer-decay"),
        ({"lr": "fast"}, "lr 'fast': must be a number, or auto"),
        ({"schedule": "plateau", "schedule_options": {"mode": "max"}}, "no option 'mode'"),
        ({"patience": 0}, "FinetuneConfig.patience 0"),
        ({"augment_options": {"short_side": (1.0, 1e9)}}, "at most 4"),
    ],
)
def test_mistakes_are_told_before_anything_is_computed(
    data: Path, tmp_path: Path, options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("an image was decoded")

    monkeypatch.setattr("tl_kit.data.pixel_store.PixelStore.fill", fail)
    with pytest.raises(ConfigError, match=message):
        quick(data, tmp_path / "run", **options)


def test_what_the_data_makes_moot_is_said(data: Path, tmp_path: Path) -> None:
    listener = Listener()
    config = FinetuneConfig(
        model="test_efficientnet",
        data=data,
        weights="none",
        img_size=32,
        augment="strong",
        epochs=2,
        plot=True,
        cache=CacheConfig(views=3),
        out=tmp_path / "run",
    )
    run = finetune(config, reporter=listener)
    assert run.policy == "full", "without pretrained weights all layers train, and nothing is computed once"
    assert any(message.startswith("--views changes nothing here") for message in listener.messages)

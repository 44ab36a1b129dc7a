"""Pretrained weights from a hub over HTTP: once, then from the cache; and what stands in the way of a download."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path

import huggingface_hub
import pytest
import safetensors.torch
import torch
from huggingface_hub import constants

from tests import children
from tests.cli.helpers import tlkit
from tests.exporting.hub_server import Hub
from tests.helpers import weights, write_images
from tests.zoo.helpers import trained
from tl_kit.errors import WeightsError
from tl_kit.zoo import hub as client
from tl_kit.zoo.build_model import build_model

NAME = "timm/test_resnet.r160_in1k"
TENSORS = "model.safetensors"


def pretrained() -> bytes:
    return safetensors.torch.save(trained("test_resnet", 1000).state_dict())


def test_finetune_takes_its_weights_from_the_hub_and_needs_it_once(hub: Hub, tmp_path: Path) -> None:
    """From the hub in this process, and from its cache in one that knows nothing but where the cache is."""
    data = write_images(tmp_path / "images", images=8)
    options = ("finetune", "test_resnet", "--data", data, "--img-size", 32, "--policy", "head", "--json", "--out")
    hub.publish(NAME, {TENSORS: pretrained()})
    assert tlkit(*options, tmp_path / "a").json["status"] == "finished"
    assert f"GET /{NAME}/resolve/main/{TENSORS}" in hub.requests
    record = json.loads((tmp_path / "a" / "tlkit.json").read_text())
    assert record["weights"]["source"] == f"Hugging Face hub {NAME}"
    card = huggingface_hub.ModelCard((tmp_path / "a" / "README.md").read_text()).data
    assert card.base_model == [NAME]
    hub.requests.clear()
    again = children.run(
        [sys.executable, "-c", "from tl_kit.cli import main; main()", *options, tmp_path / "b"],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_ENDPOINT": hub.address, "HF_HUB_CACHE": constants.HF_HUB_CACHE},
        cwd=Path(__file__).parents[2],
    )
    assert again.returncode == 0, again.stderr
    assert hub.requests == []
    for name, tensor in weights(tmp_path / "a").items():
        assert torch.equal(tensor, weights(tmp_path / "b")[name])


def test_a_download_that_breaks_off_is_not_kept(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)  # between its attempts
    hub.publish(NAME, {TENSORS: pretrained()})
    hub.cut.add(TENSORS)
    with pytest.raises(WeightsError, match="the download failed") as caught:
        build_model("test_resnet", 4, seed=0)
    assert "\n" not in str(caught.value)
    hub.cut.clear()
    assert build_model("test_resnet", 4, seed=0)[1].source == f"Hugging Face hub {NAME}"


def test_other_bytes_of_the_same_size_are_not_kept(hub: Hub) -> None:
    content = pretrained()
    hub.publish(NAME, {TENSORS: content})
    hub.swapped.add(TENSORS)
    with pytest.raises(WeightsError, match="other bytes than its SHA-256 promises"):
        build_model("test_resnet", 4, seed=0)
    assert not [path for path in Path(constants.HF_HUB_CACHE).rglob("*") if path.stat().st_size > 9999]
    hub.swapped.clear()
    _, report = build_model("test_resnet", 4, seed=0)
    assert report.source == f"Hugging Face hub {NAME}", "not from the cache"


def test_a_repository_that_is_not_to_be_seen_is_named(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.publish("a/b", {TENSORS: pretrained()})
    hub.repositories["a/b"].private = True
    assert build_model("test_resnet", 4, weights="hf-hub:a/b", seed=0)[1].loaded
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", constants.HF_HUB_CACHE + "-other")
    with pytest.raises(WeightsError, match="no such repository, or it is private"):
        build_model("test_resnet", 4, weights="hf-hub:a/b", seed=0)


def test_a_proxy_that_refuses_stops_it_in_a_line(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.publish(NAME, {TENSORS: pretrained()})
    monkeypatch.setattr(client, "CONNECT_TIMEOUT", 0.5)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{closed.getsockname()[1]}")
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.setenv(name, "")
        huggingface_hub.close_session()
        with pytest.raises(WeightsError, match="cannot be reached") as caught:
            build_model("test_resnet", 4, seed=0)
    assert "\n" not in str(caught.value)
    assert hub.requests == []

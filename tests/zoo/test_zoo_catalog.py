"""Search: what matches, what is on this machine, and sizes that agree with the built models."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch

from tl_kit.zoo import catalog, starter
from tl_kit.zoo.catalog import ModelInfo, search


def names(found: list[ModelInfo]) -> list[str]:
    return [info.name for info in found]


def put_in_cache(cache: Path, repository: str, filename: str) -> None:
    root = cache / f"models--{repository.replace('/', '--')}"
    snapshot = root / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("0" * 40)
    (snapshot / filename).write_bytes(safetensors.torch.save({"x": torch.zeros(1)}))


def test_wildcards_and_parts_of_names() -> None:
    assert names(search("test_res*")) == ["test_resnet.r160_in1k"]
    assert names(search("test_resnet")) == names(search("TEST_RESNET")) == ["test_resnet.r160_in1k"]
    assert names(search("resnet18")) == timm.list_models("*resnet18*", include_tags=True)
    assert set(names(search("resnet18"))) > set(names(search("resnet18.*")))
    assert all(name.startswith("resnet18.") for name in names(search("resnet18.*")))
    assert names(search("resnet1[8]")) == names(search("resnet18.*"))
    assert search("no_such_model") == []


def test_the_whole_catalogue_is_quick_and_complete() -> None:
    started = time.perf_counter()
    found = search("*")
    assert time.perf_counter() - started < 5
    assert names(found) == timm.list_models(include_tags=True)
    assert {info.weights for info in found} <= {"starter", "hub", "none"}  # the cache is empty


def test_bare_listing_shows_the_starters_and_the_cache(offline: Path) -> None:
    starters = [f"{s.architecture}.in1k" for s in starter.STARTERS]
    assert names(search()) == starters
    put_in_cache(offline, "timm/test_vit.r160_in1k", "model.safetensors")
    put_in_cache(offline, "timm/test_resnet.r160_in1k", "config.json")  # a card without weights is no weights
    found = search()
    assert names(found) == [*starters, "test_vit.r160_in1k"]
    assert found[-1].weights == "cache"
    assert search("test_resnet")[0].weights == "hub"


@pytest.mark.parametrize("present", [True, False])
def test_starters_are_listed_whether_installed_or_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, present: bool
) -> None:
    path = tmp_path / "x.pth" if present else None
    monkeypatch.setattr(catalog, "starter_path", lambda name: path if starter.find_starter(name) else None)
    assert [info.weights for info in search()] == ["starter" if present else "hub"] * 3
    assert [info.licence for info in search()] == ["apache-2.0"] * 3


def test_rows_agree_with_the_model_cards() -> None:
    for info in search("test_*"):
        card = timm.get_pretrained_cfg(info.name)
        model = timm.create_model(info.name)
        assert info.parameters == sum(p.numel() for p in model.parameters())
        assert info.input_size == card.input_size
        assert info.licence == (card.license or "unknown")


def test_a_missing_licence_is_unknown_and_missing_weights_are_none() -> None:
    by_name = {info.name: info for info in search("*")}
    without = [name for name in timm.list_pretrained() if timm.get_pretrained_cfg(name).license is None]
    assert without
    assert {by_name[name].licence for name in without} == {"unknown"}
    assert by_name["efficientnet_lite1.untrained"].weights == "none"


def test_counting_parameters_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    assert search("test_efficientnet.")[0].parameters > 0
    assert torch.equal(before, torch.get_rng_state())

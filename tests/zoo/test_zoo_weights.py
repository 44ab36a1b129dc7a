"""Seeds, names, image sizes, the model card that comes out, and what stays untouched."""

from __future__ import annotations

import logging
import random
import threading
from pathlib import Path

import pytest
import timm
import torch
from timm.data import resolve_model_data_config
from torch import nn

from tests.zoo.helpers import save, trained
from tl_kit.errors import ConfigError
from tl_kit.zoo.build_model import build_model, data_config


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_random_weights_follow_the_seed_alone(name: str) -> None:
    torch.manual_seed(123)
    first, report = build_model(name, 4, weights="none", seed=0)
    torch.manual_seed(456)
    same, _ = build_model(name, 4, weights="none", seed=0)
    other, _ = build_model(name, 4, weights="none", seed=1)
    assert report.source == "random, from seed 0"
    assert report.sha256 is None
    assert set(report.reinitialised) == set(first.state_dict())
    pairs = zip(first.state_dict().values(), same.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(next(first.parameters()), next(other.parameters()))


def test_the_classifier_follows_the_seed_whatever_the_file(tmp_path: Path) -> None:
    paths = [str(save(trained("test_resnet", n).state_dict(), tmp_path / f"{n}.pth")) for n in (4, 9)]
    heads = [build_model("test_resnet", 4, weights=p, seed=s)[0].fc.weight for s in (0, 1) for p in paths]
    assert torch.equal(heads[0], heads[1])
    assert torch.equal(heads[2], heads[3])
    assert not torch.equal(heads[0], heads[2])


def test_the_global_state_is_untouched(tmp_path: Path) -> None:
    path = str(save(trained("test_vit", 4).state_dict(), tmp_path / "w.pth"))
    logger = logging.getLogger("timm")
    before = torch.get_rng_state(), random.getstate(), logger.level, torch.get_default_dtype()
    build_model("test_vit", 4, weights=path, img_size=96, seed=3)
    after = torch.get_rng_state(), random.getstate(), logger.level, torch.get_default_dtype()
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


def test_timm_loads_as_before_afterwards() -> None:
    original = timm.models._builder.load_pretrained
    build_model("test_resnet", 4, weights="none", seed=0)
    with pytest.raises(ConfigError):
        build_model("test_vit", 4, weights="none", img_size=97, seed=0)
    assert timm.models._builder.load_pretrained is original


def test_models_built_in_threads_are_the_same(tmp_path: Path) -> None:
    expected, _ = build_model("test_vit", 4, weights="none", seed=5)
    found: list[nn.Module] = []
    threads = [
        threading.Thread(target=lambda: found.append(build_model("test_vit", 4, weights="none", seed=5)[0]))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for model in found:
        pairs = zip(model.state_dict().values(), expected.state_dict().values(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_nothing_is_printed_or_logged(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    path = str(save(trained("test_vit", 4).state_dict() | {"extra": torch.ones(1)}, tmp_path / "w.pth"))
    with caplog.at_level(logging.INFO):
        build_model("test_vit", 9, weights=path, img_size=96, seed=0)
    assert capfd.readouterr() == ("", "")
    assert [record for record in caplog.records if record.name.startswith("timm")] == []


@pytest.mark.parametrize(("name", "img_size"), [("test_resnet", 96), ("test_vit", 96), ("test_resnet", None)])
def test_the_model_card_describes_the_model(name: str, img_size: int | None) -> None:
    model, _ = build_model(name, 4, weights="none", img_size=img_size, seed=0)
    side = img_size or 160
    original = timm.get_pretrained_cfg(name)
    config = resolve_model_data_config(model)
    assert config == data_config(model)
    assert config["input_size"] == (3, side, side)
    assert (config["mean"], config["std"]) == (original.mean, original.std)
    assert (config["crop_pct"], config["interpolation"]) == (original.crop_pct, original.interpolation)
    assert model.pretrained_cfg["num_classes"] == model.num_classes == 4
    assert model.default_cfg is model.pretrained_cfg
    assert model(torch.zeros(2, 3, side, side)).shape == (2, 4)
    assert timm.get_pretrained_cfg(name).input_size == original.input_size  # timm's own registry is not edited


def test_an_img_size_at_recognition_only() -> None:
    model, _ = build_model("test_resnet", 4, weights="none", seed=0)
    assert data_config(model, img_size=64)["input_size"] == (3, 64, 64)
    assert data_config(model)["input_size"] == (3, 160, 160)


@pytest.mark.parametrize(("name", "img_size"), [("test_vit", 97), ("test_vit", 0), ("dla46_c", 5), ("test_resnet", -3)])
def test_sizes_that_a_model_cannot_take_name_the_option(name: str, img_size: int) -> None:
    with pytest.raises(ConfigError, match=rf"--img-size {img_size}") as caught:
        build_model(name, 4, weights="none", img_size=img_size, seed=0)
    assert "\n" not in str(caught.value)


def test_unknown_names_get_the_nearest_ones(tmp_path: Path) -> None:
    for name, near in (
        ("resnet81", "resnet18"),
        ("ResNet18", "resnet18"),
        ("tf_efficientnet_lite0.ink", "tf_efficientnet_lite0.in1k"),
        ("convnext_tinny", "convnext_tiny"),
    ):
        with pytest.raises(ConfigError, match=near):
            build_model(name, 4, seed=0)
    with pytest.raises(ConfigError, match="tlkit models"):
        build_model("qqqqqqqqqqqq", 4, seed=0)
    with pytest.raises(ConfigError, match=f"local-dir:{tmp_path}"):
        build_model(str(tmp_path), 4, seed=0)
    with pytest.raises(ConfigError, match=r"write resnet18\.a1_in1k"):
        build_model("timm/resnet18.a1_in1k", 4, seed=0)
    with pytest.raises(ConfigError, match=r"config.json is missing"):
        build_model(f"local-dir:{tmp_path}", 4, seed=0)
    (tmp_path / "config.json").write_text('{"architectures": ["ViTForImageClassification"]}')
    with pytest.raises(ConfigError, match="names no architecture of timm"):
        build_model(f"local-dir:{tmp_path}", 4, seed=0)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="JSON"):
        build_model(f"local-dir:{tmp_path}", 4, seed=0)
    with pytest.raises(ConfigError, match="at least 1 class"):
        build_model("test_resnet", 0, weights="none", seed=0)

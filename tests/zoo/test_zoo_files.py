"""Weights from files: re-headed whatever their class count, refused where they do not fit or are no data."""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path

import pytest
import timm
import torch
from timm.models._hub import save_config_for_hf

from tests.zoo.helpers import RESNET_HEAD, save, trained
from tl_kit.errors import WeightsError
from tl_kit.zoo.build_model import build_model, data_config


@pytest.mark.parametrize("classes_in_file", [3, 10, 0])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".bin"])
def test_a_file_of_any_class_count_is_re_headed(tmp_path: Path, classes_in_file: int, suffix: str) -> None:
    state = trained("test_resnet", classes_in_file).state_dict()
    path = save(state, tmp_path / f"w{suffix}")
    model, report = build_model("test_resnet", 10, weights=str(path), seed=0)
    fresh, _ = build_model("test_resnet", 10, weights="none", seed=0)
    own = model.state_dict()
    assert report.reinitialised == RESNET_HEAD
    assert report.skipped == ()
    assert set(report.loaded) | set(report.reinitialised) == set(own)
    assert all(torch.equal(own[name], state[name]) for name in report.loaded)
    assert all(torch.equal(own[name], fresh.state_dict()[name]) for name in RESNET_HEAD)
    assert model.training
    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 10)


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "state_dict_ema", "model_ema"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "_orig_mod.module."])
def test_wrapped_and_prefixed_files(tmp_path: Path, wrapper: str, prefix: str) -> None:
    state = trained("test_resnet", 4).state_dict()
    path = tmp_path / "w.pth.tar"
    torch.save({"epoch": 3, "args": argparse.Namespace(lr=1), wrapper: {prefix + k: v for k, v in state.items()}}, path)
    model, report = build_model("test_resnet", 6, weights=str(path), seed=0)
    assert report.reinitialised == RESNET_HEAD
    assert all(torch.equal(model.state_dict()[name], state[name]) for name in report.loaded)


def test_averaged_weights_win_over_raw_ones(tmp_path: Path) -> None:
    raw, averaged = (trained("test_resnet", 4, seed=seed).state_dict() for seed in (1, 2))
    torch.save({"state_dict": raw, "state_dict_ema": averaged}, tmp_path / "w.pth")
    model, _ = build_model("test_resnet", 4, weights=str(tmp_path / "w.pth"), seed=0)
    assert torch.equal(model.state_dict()["conv1.0.weight"], averaged["conv1.0.weight"])


def test_left_over_tensors_are_reported_as_skipped(tmp_path: Path) -> None:
    state = trained("test_resnet", 4).state_dict() | {"decoder.weight": torch.ones(3)}
    _, report = build_model("test_resnet", 4, weights=str(save(state, tmp_path / "w.pth")), seed=0)
    assert report.skipped == ("decoder.weight",)
    assert "decoder.weight" in report.summary()
    assert "fc.weight" in report.summary()


def test_files_of_another_architecture_are_refused(tmp_path: Path) -> None:
    for other in ("test_vit", "test_efficientnet", "test_convnext"):
        path = save(trained(other, 4).state_dict(), tmp_path / f"{other}.safetensors")
        with pytest.raises(WeightsError, match="not of this architecture") as caught:
            build_model("test_resnet", 4, weights=str(path), seed=0)
        assert str(path) in str(caught.value)
        assert "conv1.0.weight" in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("file", "model"), [("resnet18", "resnet34"), ("resnet34", "resnet18")])
def test_deeper_and_shallower_relatives_are_refused(tmp_path: Path, file: str, model: str) -> None:
    path = save(timm.create_model(file, num_classes=2).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="architecture"):
        build_model(model, 2, weights=str(path), seed=0)


def test_other_shapes_below_the_classifier_are_named(tmp_path: Path) -> None:
    state = trained("test_resnet", 4).state_dict()
    state["layer1.0.conv1.weight"] = torch.zeros(1, 2, 3, 3)
    with pytest.raises(WeightsError, match=r"layer1\.0\.conv1\.weight \(1, 2, 3, 3\) in the file"):
        build_model("test_resnet", 4, weights=str(save(state, tmp_path / "w.pth")), seed=0)


def test_nan_in_a_file_is_refused(tmp_path: Path) -> None:
    state = trained("test_resnet", 4).state_dict()
    state["layer1.0.conv1.weight"][0, 0, 0, 0] = float("nan")
    with pytest.raises(WeightsError, match=r"NaN or infinity, such as layer1\.0\.conv1\.weight"):
        build_model("test_resnet", 4, weights=str(save(state, tmp_path / "w.pth")), seed=0)


class Malicious:
    """Unpickling it would create a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_pickle_is_neither_run_nor_loaded(tmp_path: Path, legacy: bool) -> None:
    target, path = tmp_path / "was-run", tmp_path / "w.pth"
    content = {"model": trained("test_resnet", 4).state_dict(), "extra": Malicious(target)}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(WeightsError, match="could run code") as caught:
        build_model("test_resnet", 4, weights=str(path), seed=0)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not target.exists()
    torch.load(path, weights_only=False)
    assert target.exists()  # the file would have run


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w.bin"])
@pytest.mark.parametrize("damage", ["empty", "noise", "cut"])
def test_damaged_files_are_named(tmp_path: Path, name: str, damage: str) -> None:
    path = save(trained("test_resnet", 4).state_dict(), tmp_path / name)
    content = path.read_bytes()
    path.write_bytes({"empty": b"", "noise": bytes(range(256)) * 40, "cut": content[: len(content) // 2]}[damage])
    with pytest.raises(WeightsError, match="damaged") as caught:
        build_model("test_resnet", 4, weights=str(path), seed=0)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_hold_something_else_are_named(tmp_path: Path) -> None:
    for content, message in ([1, 2], "holds a list"), ({"epoch": 3}, "no tensors"), ({1: torch.ones(1)}, "by name"):
        torch.save(content, tmp_path / "w.pth")
        with pytest.raises(WeightsError, match=message):
            build_model("test_resnet", 4, weights=str(tmp_path / "w.pth"), seed=0)
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(WeightsError, match=r"plain.pth"):
        build_model("test_resnet", 4, weights=str(tmp_path / "plain.pth"), seed=0)
    with pytest.raises(WeightsError, match="no such weights file"):
        build_model("test_resnet", 4, weights=str(tmp_path / "missing.pth"), seed=0)
    with pytest.raises(WeightsError, match="the folder holds no weights"):
        build_model("test_resnet", 4, weights=str(tmp_path), seed=0)


def test_a_checkpoint_folder_serves_as_weights_and_as_model(tmp_path: Path) -> None:
    model = trained("test_vit", 4, img_size=96)
    save(model.state_dict(), tmp_path / "model.safetensors")
    data = {"input_size": (3, 96, 96)}
    save_config_for_hf(model, str(tmp_path / "config.json"), {"label_names": list("abcd")}, data_config=data)
    for name, weights in ((f"local-dir:{tmp_path}", "auto"), ("test_vit", str(tmp_path))):
        built, report = build_model(name, 7, weights=weights, img_size=96, seed=0)
        assert report.source == f"local file {tmp_path / 'model.safetensors'}"
        assert report.reinitialised == ("head.weight", "head.bias")
        assert all(torch.equal(built.state_dict()[key], model.state_dict()[key]) for key in report.loaded)
        assert built(torch.zeros(1, 3, 96, 96)).shape == (1, 7)
        assert data_config(built)["input_size"] == (3, 96, 96)
        assert "label_names" not in built.pretrained_cfg
    own_size, _ = build_model(f"local-dir:{tmp_path}", 7, seed=0)
    assert data_config(own_size)["input_size"] == (3, 96, 96)


def test_position_embeddings_are_resampled_as_timm_does(tmp_path: Path) -> None:
    path = save(trained("test_vit", 4).state_dict(), tmp_path / "w.safetensors")
    reference = timm.create_model(
        "test_vit",
        pretrained=True,
        num_classes=6,
        img_size=96,
        pretrained_cfg_overlay={"file": str(path), "num_classes": 4},
    )
    model, report = build_model("test_vit", 6, weights=str(path), img_size=96, seed=0)
    assert "pos_embed" in report.loaded
    assert report.reinitialised == ("head.weight", "head.bias")
    for name in report.loaded:
        assert torch.equal(model.state_dict()[name], reference.state_dict()[name])

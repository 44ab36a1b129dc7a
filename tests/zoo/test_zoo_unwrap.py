"""Weights inside what training scripts save: nested, prefixed, beside other things; and files that hold none."""

from __future__ import annotations

import gzip
import json
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from tests.zoo.helpers import RESNET_HEAD, save, trained
from tl_kit.errors import WeightsError
from tl_kit.zoo.build_model import WeightsReport, build_model
from tl_kit.zoo.state_dict_files import read_state_dict

MODEL = "test_resnet"
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    return dict(trained(MODEL, 4).state_dict())


def build(content: Any, path: Path) -> tuple[State, WeightsReport]:
    torch.save(content, path)
    model, report = build_model(MODEL, 6, weights=str(path), seed=0)
    return dict(model.state_dict()), report


def assert_loaded(built: State, report: WeightsReport, state: State) -> None:
    assert report.reinitialised == RESNET_HEAD
    assert len(report.loaded) > 20
    assert all(torch.equal(built[name], state[name]) for name in report.loaded)


WRAPPERS = (
    *("model_state_dict", "net", "state_dict", "model", "ema", "state_dict_ema", "model_state", "network", "weights"),
    *("net_state_dict", "params", "module", "my_own_name", "state_dict.model", "ema.module", "checkpoint.net.state"),
)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_network_under_any_key(wrapper: str, state: State, tmp_path: Path) -> None:
    content: Any = state
    for key in reversed(wrapper.split(".")):
        optimizer = {"state": {0: {"exp_avg": torch.ones(3, 3)}}, "param_groups": [{"lr": 0.1}]}
        content = {"epoch": 3, "optimizer_state_dict": optimizer, "opt": optimizer, key: content, "best": 0.9}
    built, report = build(content, tmp_path / "w.pth")
    assert_loaded(built, report, state)
    assert report.unwrapped == wrapper
    assert f"tensors under {wrapper} loaded" in report.summary()


PREFIXES = (
    *("module.", "model.", "_orig_mod.", "backbone.", "encoder.", "net.", "model.module.", "module._orig_mod.model."),
    *("student.backbone.", "any.thing.at.all."),
)


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("wrapper", ["", "state_dict"])
def test_names_behind_a_prefix(prefix: str, wrapper: str, state: State, tmp_path: Path) -> None:
    tensors = {prefix + name: value for name, value in state.items()}
    beside = {"classifier.weight": torch.ones(4, 4), "criterion.weight": torch.ones(4)}
    content = {**tensors, **beside}
    built, report = build({wrapper: content} if wrapper else content, tmp_path / "w.pth")
    assert_loaded(built, report, state)
    assert set(report.skipped) >= set(beside)


def test_what_was_unwrapped_is_said(state: State, tmp_path: Path) -> None:
    lightning = {"epoch": 1, "state_dict": {f"model.{name}": value for name, value in state.items()}, "loops": {}}
    built, report = build(lightning, tmp_path / "last.ckpt")
    assert_loaded(built, report, state)
    assert report.unwrapped == "state_dict.model"
    _, plain = build(state, tmp_path / "plain.pth")
    assert plain.unwrapped == ""
    assert "under" not in plain.summary()


def test_a_safetensors_file_with_a_prefix(state: State, tmp_path: Path) -> None:
    path = save({f"model.{name}": value for name, value in state.items()}, tmp_path / "w.safetensors")
    model, report = build_model(MODEL, 6, weights=str(path), seed=0)
    assert_loaded(dict(model.state_dict()), report, state)
    assert report.unwrapped == "model"


def test_weights_of_another_naming_behind_a_prefix(tmp_path: Path) -> None:
    """timm's filter converts the names once the prefix is off."""
    vit = dict(trained("test_vit", 4, img_size=96).state_dict())
    tensors = {f"wrapped.{name}": value for name, value in vit.items()}
    torch.save({"net": tensors}, tmp_path / "w.pth")
    model, report = build_model("test_vit", 6, weights=str(tmp_path / "w.pth"), img_size=64, seed=0)
    assert "pos_embed" in report.loaded, "resampled"
    assert model.get_parameter("pos_embed").shape != vit["pos_embed"].shape


class Averaged(nn.Module):
    """As torch.optim.swa_utils.AveragedModel saves: a count beside the module."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.register_buffer("n_averaged", torch.tensor(3))


def test_averaged_weights_come_first_whatever_the_order(state: State, tmp_path: Path) -> None:
    raw = {name: value + 1 if value.is_floating_point() else value for name, value in state.items()}
    for averaged in ("ema", "model_ema", "ema_state_dict"):
        for content in ({"model": raw, averaged: state}, {averaged: state, "model": raw}):
            built, report = build(content, tmp_path / "w.pth")
            assert_loaded(built, report, state)
            assert report.unwrapped == averaged
    useless: dict[str, Any] = {"decay": torch.tensor(0.9), "shadow_params": [torch.ones(2, 2)]}
    built, report = build({"ema": useless, "model": state}, tmp_path / "w.pth")
    assert report.unwrapped == "model", "averages without names are none"
    shadow = {"ema": {"decay": 0.9, "shadow": state}, "model": raw}
    assert build(shadow, tmp_path / "w.pth")[1].unwrapped == "ema.shadow"
    model = timm.create_model(MODEL, num_classes=4)
    model.load_state_dict(state)
    built, report = build(Averaged(model).state_dict(), tmp_path / "w.pth")
    assert_loaded(built, report, state)
    both = {f"{who}.{name}": value for who in ("student", "teacher") for name, value in state.items()}
    assert build(both, tmp_path / "w.pth")[1].unwrapped == "teacher"


@pytest.mark.parametrize("names", [("generator", "critic"), ("a.x", "b.x")])
def test_two_networks_are_named(names: tuple[str, str], state: State, tmp_path: Path) -> None:
    nested = dict.fromkeys(names, state)
    flat = {f"{prefix}.{name}": value for prefix in names for name, value in state.items()}
    for content in (nested, flat):
        with pytest.raises(WeightsError, match=f"{names[0]}, {names[1]}|{names[1]}, {names[0]}") as caught:
            build(content, tmp_path / "w.pth")
        assert str(tmp_path / "w.pth") in str(caught.value)
        assert "\n" not in str(caught.value)


OPTIMIZER = {"state": {0: {"exp_avg": torch.ones(3, 3)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
NOTHING: dict[str, tuple[Any, str]] = {
    "empty": ({}, "holds no tensors"),
    "an empty model": ({"model": {}}, "holds no tensors"),
    "numbers": ({"epoch": 3, "loss": [1.0]}, "holds no tensors"),
    "an optimizer": (OPTIMIZER, "an optimizer's state and no network"),
    "an optimizer under a key": ({"epoch": 3, "optimizer": OPTIMIZER}, "an optimizer's state and no network"),
    "a list of tensors": ([torch.ones(3, 3)], "holds a list"),
    "a tensor": (torch.ones(3, 3), "holds a Tensor"),
    "None": (None, "holds a NoneType"),
}


@pytest.mark.parametrize("case", NOTHING)
def test_files_without_a_network(case: str, tmp_path: Path) -> None:
    content, message = NOTHING[case]
    with pytest.raises(WeightsError, match=message) as caught:
        build(content, tmp_path / "w.pth")
    assert str(tmp_path / "w.pth") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_whole_module_is_refused(tmp_path: Path) -> None:
    for content in (nn.Linear(2, 2), {"model": nn.Linear(2, 2)}):
        with pytest.raises(WeightsError, match=r"could run code; save model\.state_dict"):
            build(content, tmp_path / "w.pth")


def test_mappings_that_hold_themselves_end(state: State, tmp_path: Path) -> None:
    loop: dict[str, Any] = {"epoch": 3}
    loop |= {"model": loop, "net": loop, "again": [loop]}
    torch.save(loop, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="holds no tensors"):
        read_state_dict(tmp_path / "w.pth")
    wide: dict[str, Any] = OrderedDict((f"k{number}", {}) for number in range(300))
    for value in wide.values():
        value |= wide  # every one in every other
    torch.save(wide, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="holds no tensors"):
        read_state_dict(tmp_path / "w.pth")
    deep: Any = state
    for _ in range(5):
        deep = {"model": deep}
    assert build(deep, tmp_path / "w.pth")[1].unwrapped == "model.model.model.model.model"


def zipped(path: Path, **members: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "."), content)


def test_files_of_other_programs_are_named(tmp_path: Path) -> None:
    made = {
        "model.onnx": (b"\x08\x07\x12\x07pytorch", "ONNX"),
        "renamed.pth": (b"\x08\x09:\x05onnx.x", "ONNX"),
        "model.h5": (b"\x89HDF\r\n\x1a\n" + bytes(99), "Keras"),
        "hdf.pth": (b"\x89HDF\r\n\x1a\n" + bytes(99), "Keras"),
        "model.tflite": (b"\x1c\0\0\0TFL3" + bytes(99), "TensorFlow Lite"),
        "saved_model.pb": (b"\x08\x01\x12", "TensorFlow"),
        "model.safetensors": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        "model.pth": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        "page.pth": (b"<!DOCTYPE html><html>", "web page"),
        "page.safetensors": (b"<html>", "web page"),
        "model.safetensors.index.json": (json.dumps({"weight_map": {}}).encode(), "JSON"),
        "model.gguf": (b"GGUF" + bytes(99), "GGUF"),
        "packed.pth.gz": (gzip.compress(b"x"), "gzip"),
    }
    for name, (content, message) in made.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightsError, match=message) as caught:
            build_model(MODEL, 6, weights=str(tmp_path / name), seed=0)
        assert str(tmp_path / name) in str(caught.value)
        assert "\n" not in str(caught.value)
    np.save(tmp_path / "x.npy", np.zeros(3))
    np.savez(tmp_path / "x.npz", a=np.zeros(3))
    zipped(tmp_path / "x.keras", config__json=b"{}", model__weights__h5=b"")
    zipped(tmp_path / "x.zip", readme__txt=b"", weights__pth=b"")
    for name, message in (("x.npy", "NumPy"), ("x.npz", "NumPy"), ("x.keras", "Keras"), ("x.zip", "unpack it")):
        with pytest.raises(WeightsError, match=message):
            build_model(MODEL, 6, weights=str(tmp_path / name), seed=0)
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"")
    with pytest.raises(WeightsError, match="TensorFlow"):
        build_model(MODEL, 6, weights=str(tmp_path / "saved"), seed=0)


@pytest.mark.parametrize("length", [ord("<"), ord("{"), 0x8B1F, 0x088B1F])
def test_safetensors_with_a_header_of_any_length_are_no_other_files(length: int, state: State, tmp_path: Path) -> None:
    """Its length is what the file begins with: 60 is the beginning of a web page."""
    path = save({"x": torch.ones(2, 2)} if length < 300 else state, tmp_path / "w.safetensors")
    content = path.read_bytes()
    stop = 8 + int.from_bytes(content[:8], "little")
    header = content[8:stop].rstrip()
    header += b" " * (length - len(header)) if length > len(header) else b""
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[stop:])
    assert len(header) == length
    assert len(read_state_dict(path)) == (1 if length < 300 else len(state))

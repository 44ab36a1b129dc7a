"""bf16 inference keeps the classifier in fp32, leaves no trace, and a stopped forward pass does not switch it off."""

from __future__ import annotations

from dataclasses import replace

import pytest
import timm
import torch

from tl_kit.freezing.trunk import Trunk, prove_cut
from tl_kit.inference.run_models import model_context
from tl_kit.machine.runtime import Runtime

CPU = Runtime(device=torch.device("cpu"), channels_last=True, batch_size=4)
LOW = replace(CPU, precision="bf16")


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
def test_only_the_classifier_is_wide(name: str) -> None:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=3).eval()
    images = torch.randn(4, *model.pretrained_cfg["input_size"])
    cut = model.pretrained_cfg["classifier"]
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        features = Trunk(model, cut)(images)
        narrow = model(images)
    classifier = model.get_submodule(cut)
    with torch.inference_mode():
        expected = classifier(features.float())
    with model_context([model], LOW):
        found = model(images)
    assert narrow.dtype == torch.bfloat16
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)
    assert not torch.is_autocast_enabled("cpu")
    assert not classifier._forward_pre_hooks
    assert not classifier._forward_hooks


def test_trunk_passes_one_after_another_stay_narrow() -> None:
    model = timm.create_model("test_resnet", num_classes=3).eval()
    images = torch.randn(4, 3, 64, 64)
    trunk = Trunk(model, "fc")
    with model_context([model], LOW):
        first, second = trunk(images), trunk(images)
        assert torch.is_autocast_enabled("cpu")
    assert torch.equal(first, second)


@pytest.mark.parametrize("runtime", [CPU, LOW], ids=["fp32", "bf16"])
@pytest.mark.parametrize("cut", ["fc", "layer4"])
def test_cuts_are_exact_in_either_precision(runtime: Runtime, cut: str) -> None:
    model = timm.create_model("test_resnet", num_classes=3).eval()
    images = torch.randn(4, 3, 64, 64)
    with model_context([model], runtime):
        tail = prove_cut(model, cut, images)
        assert tail is not None
        assert torch.equal(tail(Trunk(model, cut)(images)), model(images))


def test_fp32_changes_nothing() -> None:
    model = timm.create_model("test_vit", num_classes=3).eval()
    images = torch.randn(4, *model.pretrained_cfg["input_size"])
    with torch.inference_mode():
        expected = model(images)
    with model_context([model], CPU):
        assert torch.equal(model(images), expected)

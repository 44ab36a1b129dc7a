"""Names of models and weights that are spelled otherwise than they are taken: one line that says what to write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.zoo.helpers import save, trained
from tl_kit import FinetuneConfig
from tl_kit.errors import ConfigError, TlKitError, WeightsError
from tl_kit.finetuning.checks import check
from tl_kit.zoo.locate import check_weights
from tl_kit.zoo.names import check_name, resolve

WRITE = {
    "hf_hub:": "hf-hub:OWNER/NAME",
    "hf-hub:": "hf-hub:OWNER/NAME",
    "hf-hub": "hf-hub:OWNER/NAME",
    "hf_hub:timm/resnet18.a1_in1k": "resnet18.a1_in1k",
    "hf_hub:me/mine": "hf-hub:me/mine",
    "HF-Hub:me/mine": "hf-hub:me/mine",
    "hf-hub/me/mine": "hf-hub:me/mine",
    "hf-hub: me/mine": "hf-hub:me/mine",
    "hf-hub://me/mine": "hf-hub:me/mine",
    "hf://me/mine": "hf-hub:me/mine",
    "huggingface:me/mine": "hf-hub:me/mine",
    "hf-hub:mine": "hf-hub:OWNER/NAME",
    "hf-hub:resnet18": "resnet18",
    "hf-hub:a/b/c": "hf-hub:OWNER/NAME",
    "hf-hub:a/b@": "hf-hub:OWNER/NAME",
    "hf-hub:https://huggingface.co/me/mine": "hf-hub:me/mine",
    "https://huggingface.co/timm/resnet18.a1_in1k": "resnet18.a1_in1k",
    "https://huggingface.co/timm/resnet18.a1_in1k/": "resnet18.a1_in1k",
    "https://huggingface.co/timm/resnet18.a1_in1k/tree/main": "resnet18.a1_in1k",
    "https://huggingface.co/timm/resnet18.a1_in1k?library=timm": "resnet18.a1_in1k",
    "https://huggingface.co/timm/resnet18.a1_in1k#model-details": "resnet18.a1_in1k",
    "https://huggingface.co/me/mine/blob/main/model.safetensors": "hf-hub:me/mine",
    "https://huggingface.co/me/mine/tree/v2": "hf-hub:me/mine@v2",
    "https://huggingface.co/me/mine.git": "hf-hub:me/mine",
    "http://www.huggingface.co/me/mine": "hf-hub:me/mine",
    "huggingface.co/me/mine": "hf-hub:me/mine",
    "hf.co/me/mine": "hf-hub:me/mine",
    "timm/resnet18.a1_in1k": "resnet18.a1_in1k",
    "timm/resnet18": "resnet18",
    "timm/not_there": "hf-hub:timm/not_there",
    "ResNet18": "resnet18",
    "RESNET18.A1_IN1K": "resnet18.a1_in1k",
    "resnet-18": "resnet18",
    "resnet18:a1_in1k": "resnet18.a1_in1k",
    "EfficientNet-B0": "efficientnet_b0",
    "vit-base-patch16-224": "vit_base_patch16_224",
    " resnet18": "resnet18",
    "resnet18\n": "resnet18",
    "'resnet18'": "resnet18",
    "local_dir:imgs": "local-dir:imgs",
    "local-dir:": "local-dir:FOLDER",
}


@pytest.mark.parametrize("name", WRITE)
def test_what_to_write_is_said(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(name)
    text = str(caught.value)
    assert text.endswith(f"write {WRITE[name]}")
    assert text.isprintable()
    assert name.strip() in text
    if not WRITE[name].endswith(("NAME", "FOLDER", "imgs", "not_there", "mine", "v2")):
        assert resolve(WRITE[name]).name == WRITE[name]


OTHERWISE: dict[Any, str] = {
    "": "empty",
    " \t": "empty",
    None: "NoneType, not as a text",
    Path("resnet18"): "not as a text",
    "resnt18": "did you mean resnet18",
    "resnet18.a1": "it has resnet18.a1_in1k",
    "facebook/dino": "write hf-hub:facebook/dino for the hub or local-dir:facebook/dino for a folder",
    "xyzzy": "tlkit models PATTERN searches",
    "https://example.com/model": "an address",
    "./not/there": "no such folder",
    "~/models": "no such folder",
    "best.pth": "--weights best.pth",
    "runs/model.onnx": "a file of weights",
    "local-dir:/not/there": "no such folder",
    "x" * 5000: "timm knows no such model",
}


@pytest.mark.parametrize("name", OTHERWISE, ids=lambda name: repr(name)[:20])
def test_other_names_that_cannot_be(name: Any) -> None:
    with pytest.raises(ConfigError, match=OTHERWISE[name]) as caught:
        check_name(name)
    assert str(caught.value).isprintable()


def test_files_and_folders_as_a_model(tmp_path: Path) -> None:
    path = save(trained("test_resnet", 2).state_dict(), tmp_path / "weights")
    for name, message in (
        (str(path), f"--weights {path}"),
        (str(tmp_path), f"write local-dir:{tmp_path}"),
        (f"local-dir:{path}", "is a file; name its folder"),
        (f"local-dir:{tmp_path}", "no model folder"),
    ):
        with pytest.raises(ConfigError, match=message):
            resolve(name)


WEIGHTS: dict[Any, str] = {
    "": "--weights is empty",
    " ": "--weights is empty",
    None: "None: is not a text",
    "None": "write none for random weights",
    "random": "write none for random weights",
    "AUTO": "write auto",
    "imagenet": "write auto for the model's own pretrained weights",
    "hf_hub:me/mine": "write hf-hub:me/mine",
    "hf-hub:": "names no repository",
    "hf-hub:mine": "names no repository",
    "timm/resnet18.a1_in1k": "write hf-hub:timm/resnet18.a1_in1k",
    "https://huggingface.co/me/mine/resolve/main/x.pth": "write hf-hub:me/mine",
    "https://example.com/x.pth": "download this one first",
    "nothing.pth": "nothing.pth: no such weights file",
    "x" * 5000: "no such weights file",
    "a\0b": "no such weights file",
}


@pytest.mark.parametrize("weights", WEIGHTS, ids=lambda name: repr(name)[:20])
def test_weights_that_cannot_be(weights: Any, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=WEIGHTS[weights]):
        check_weights(weights)


def test_names_are_judged_before_any_image_is_read(tmp_path: Path) -> None:
    """The images of a run are scanned after its options are checked."""
    for options in ({"model": "resnt18"}, {"model": "resnet18", "weights": "nothing.pth"}):
        with pytest.raises(TlKitError, match=r"resnt18|nothing"):
            check(FinetuneConfig(data=tmp_path, **options))
    for options in ({"model": "resnet18"}, {"model": "hf-hub:me/mine@v2", "weights": "none"}):
        check(FinetuneConfig(data=tmp_path, **options))

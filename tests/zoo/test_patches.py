"""The edge of an image that no patch reaches is told, and is as wide as it is said to be."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import timm
import torch

from tests.helpers import Listener, write_images
from tl_kit.config import FinetuneConfig
from tl_kit.data.scan import scan
from tl_kit.finetuning.preparation import prepare
from tl_kit.zoo.patches import unseen_edge


@pytest.mark.parametrize(
    ("name", "side", "seen"),
    [
        ("vit_tiny_patch16_224", 31, 16),
        ("vit_tiny_patch16_224", 70, 64),
        ("convnext_atto", 70, 68),
        ("vit_tiny_patch16_224", 48, 48),
        ("resnet18", 70, 70),
        ("tf_efficientnet_lite0", 65, 65),
    ],
)
@torch.no_grad()
def test_what_is_said_to_be_unseen_changes_nothing(name: str, side: int, seen: int) -> None:
    options = {"img_size": side} if name.startswith("vit") else {}
    model = timm.create_model(name, pretrained=False, **options).eval()
    said = unseen_edge(model, side)
    assert (f"see {seen} of {side} pixels a side" in said) == (seen < side)
    image = torch.zeros(1, 3, side, side)
    plain = model.forward_features(image)
    image[..., seen:] = 5.0
    assert torch.equal(model.forward_features(image), plain)
    image[..., seen - 1] = 5.0
    assert not torch.equal(model.forward_features(image), plain)
    if said:
        fits = re.search(r"; (\d+) fits", said)
        assert fits is not None
        assert unseen_edge(model, int(fits[1])) == ""


def test_a_run_tells_it(tmp_path: Path) -> None:
    data, listener = write_images(tmp_path / "images", images=4), Listener()
    config = FinetuneConfig(model="vit_tiny_patch16_224", data=data, weights="none", img_size=70, policy="head")
    prepare(config, listener, manifest=scan(data), dry=True).cleanup.close()
    assert any(line.startswith("--img-size 70: patches of 16 pixels see 64 of 70") for line in listener.messages)

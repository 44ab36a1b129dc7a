"""Networks of many families, with random weights: the ONNX file computes what torch computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import timm
import torch

from tl_kit.combining.fitted_rule import FittedRule
from tl_kit.exporting.classifier import Classifier, Member, Uncut
from tl_kit.exporting.onnx_file import write_onnx
from tl_kit.exporting.programs import trace
from tl_kit.images.transforms import Preprocessing

SIDE = 64
NAMES: dict[str, dict[str, int]] = {
    "test_byobnet": {},
    "test_convnext": {},
    "test_efficientnet": {},
    "test_efficientnet_gn": {},
    "test_efficientnet_ln": {},
    "test_efficientnet_evos": {},
    "test_mambaout": {},
    "test_nfnet": {},
    "test_resnet": {},
    "test_vit": {"img_size": SIDE},
    "test_vit2": {"img_size": SIDE},
    "test_vit4": {"img_size": SIDE},
    "lcnet_035": {},
    "mobilenetv3_small_050": {},
    "resnet10t": {},
    "regnetx_002": {},
    "mnasnet_small": {},
    "repvgg_a0": {},
    "vgg11": {},
    "tinynet_e": {},
}
ALIKE = 1e-4  # the tolerance of export


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", NAMES)
def test_probabilities_are_those_of_torch(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=3, **NAMES[name]).eval()
    head = network.get_classifier()
    images = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)
    images[1:] //= 3  # images of one brightness may look alike to a network of random weights
    with torch.no_grad():  # whose outputs may be so small that all probabilities would be a third
        torch.nn.init.zeros_(head.bias)
        head.weight.div_(network(torch.from_numpy(images).permute(0, 3, 1, 2) / 255).std())
    seen = Preprocessing((3, SIDE, SIDE), "bicubic", 0.9, "center", (0.4, 0.5, 0.6), (0.2, 0.3, 0.2))
    whole = Classifier([Uncut()], [0], [Member(network, seen, range(3))], FittedRule()).eval().requires_grad_(False)
    path = tmp_path / "f.onnx"
    write_onnx(path, trace(whole, size=(SIDE, SIDE)), metadata={})
    session = onnxruntime.InferenceSession(str(path))
    found = session.run(None, {"images": images})[0]
    with torch.inference_mode():
        expected = whole(torch.from_numpy(images)).numpy()
    assert np.ptp(expected) > 100 * ALIKE
    np.testing.assert_allclose(found, expected, rtol=0, atol=ALIKE)
    np.testing.assert_allclose(session.run(None, {"images": images[:1]})[0], expected[:1], rtol=0, atol=ALIKE)

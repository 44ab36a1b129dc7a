"""A network of any family, with random weights: the ONNX file computes what torch computes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import timm
import torch

from tl_kit.combining.fitted_rule import FittedRule
from tl_kit.exporting.classifier import Classifier, Member, Uncut
from tl_kit.exporting.onnx_file import write_onnx
from tl_kit.exporting.programs import trace
from tl_kit.images.transforms import Preprocessing

__all__ = ["SIDE", "check_family"]

SIDE = 64
ALIKE = 1e-4  # the tolerance of export


def check_family(name: str, options: Mapping[str, Any], path: Path) -> None:
    """Export a network of random weights to ``path``, and compare what ONNX Runtime and torch compute."""
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=3, **options).eval()
    head = network.get_classifier()
    images = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)
    images[1:] //= 3  # images of one brightness may look alike to a network of random weights
    with torch.no_grad():  # whose outputs may be so small that all probabilities would be a third
        torch.nn.init.zeros_(head.bias)
        head.weight.div_(network(torch.from_numpy(images).permute(0, 3, 1, 2) / 255).std())
    seen = Preprocessing((3, SIDE, SIDE), "bicubic", 0.9, "center", (0.4, 0.5, 0.6), (0.2, 0.3, 0.2))
    whole = Classifier([Uncut()], [0], [Member(network, seen, range(3))], FittedRule()).eval().requires_grad_(False)
    write_onnx(path, trace(whole, size=(SIDE, SIDE)), metadata={})
    session = onnxruntime.InferenceSession(str(path))
    found = session.run(None, {"images": images})[0]
    with torch.inference_mode():
        expected = whole(torch.from_numpy(images)).numpy()
    assert np.ptp(expected) > 100 * ALIKE
    np.testing.assert_allclose(found, expected, rtol=0, atol=ALIKE)
    np.testing.assert_allclose(session.run(None, {"images": images[:1]})[0], expected[:1], rtol=0, atol=ALIKE)

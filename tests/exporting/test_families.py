"""Families of convolutions, with random weights: the ONNX file computes what torch computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.exporting.families import check_family

# As few layers as the family's own options allow: each kind of layer is there, and a layer is traced like its like.
NAMES: dict[str, dict[str, Any]] = {
    "densenet121": {"block_config": (1, 1)},
    "inception_next_atto": {"depths": (1, 1, 1, 1)},
    "resnetv2_18": {"layers": (1, 1)},
    "skresnet18": {"layers": (1, 1, 1, 1)},
    "test_byobnet": {},
    "test_convnext": {"depths": (1, 1, 1, 1)},
    "test_efficientnet": {},
    "test_efficientnet_evos": {},
    "test_efficientnet_gn": {"act_layer": "hard_swish"},
    "test_nfnet": {},
}


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", NAMES)
def test_probabilities_are_those_of_torch(name: str, tmp_path: Path) -> None:
    check_family(name, NAMES[name], tmp_path / "f.onnx")

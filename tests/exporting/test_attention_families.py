"""Families with attention and gates, with random weights: the ONNX file computes what torch computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.exporting.families import SIDE, check_family

# As few layers as the family's own options allow: each kind of layer is there, and a layer is traced like its like.
NAMES: dict[str, dict[str, Any]] = {
    "beit_base_patch16_224": {"img_size": SIDE, "depth": 1, "embed_dim": 64, "num_heads": 2},
    "convit_tiny": {"img_size": SIDE, "depth": 1, "local_up_to_layer": 0},
    "starnet_s1": {"depths": (1, 1, 1, 1), "base_dim": 8},
    "swin_tiny_patch4_window7_224": {
        "img_size": SIDE,
        "depths": (2,),
        "embed_dim": 32,
        "num_heads": (2,),
        "window_size": 4,
    },
    "test_mambaout": {"depths": (1, 1)},
    "test_vit": {"img_size": SIDE, "depth": 1},
    "test_vit2": {"img_size": SIDE, "depth": 1},
    "test_vit4": {"img_size": SIDE, "depth": 1},
    "visformer_tiny": {"img_size": SIDE, "depth": (1, 1, 1), "embed_dim": 32},
}


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", NAMES)
def test_probabilities_are_those_of_torch(name: str, tmp_path: Path) -> None:
    check_family(name, NAMES[name], tmp_path / "f.onnx")

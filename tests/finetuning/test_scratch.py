"""From random weights: more steps than fine-tuning needs, and no decay that outpaces what they learn."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from tests.helpers import NEARLY_SQUARE, quick, settings_of, write_images
from tl_kit import LoopConfig
from tl_kit.config import OptimizerDefaults

DEFAULTS = OptimizerDefaults()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("scratch") / "images", size=NEARLY_SQUARE)


@pytest.fixture(scope="module")
def pretrained(data: Path) -> Path:
    quick(data, data.parent / "pretrained")
    return data.parent / "pretrained"


def test_random_weights_get_more_steps_than_pretrained_ones(data: Path, pretrained: Path, tmp_path: Path) -> None:
    few = LoopConfig(epochs=1, least_steps=4, scratch_steps=9, warmup_epochs=0.0)
    for weights, least in (("none", 9), (str(pretrained), 4)):
        run = quick(data, tmp_path / str(least), weights=weights, epochs=None, loop=few)
        images = json.loads((tmp_path / str(least) / "tlkit.json").read_text())["data"]["train"]
        assert run.epochs == math.ceil(least / math.ceil(len(images) / 8))
    assert math.ceil(len(images) / 8) < 9, "or the two do not differ"


@pytest.mark.parametrize(
    ("options", "decay"),
    [
        ({}, DEFAULTS.scratch_decay),
        ({"optimizer": "nesterov"}, DEFAULTS.scratch_decay),
        ({"policy": "last:2"}, DEFAULTS.scratch_decay),
        ({"optimizer": "adamw"}, DEFAULTS.weight_decays["adamw"]),
        ({"optimizer": "adam"}, DEFAULTS.weight_decay),
        ({"policy": "head", "optimizer": "momentum"}, DEFAULTS.weight_decays["momentum"]),
        ({"loop": LoopConfig(weight_decay=0.02)}, 0.02),
    ],
)
def test_a_coupled_decay_of_random_layers_is_weaker(
    data: Path, tmp_path: Path, options: dict[str, object], decay: float
) -> None:
    quick(data, tmp_path / "run", **({"epochs": 1} | options))
    assert settings_of(tmp_path / "run")["weight_decay"] == decay

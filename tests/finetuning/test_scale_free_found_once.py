"""The scale-free weights are found once for networks that are equal, whatever their weights, and anew for any other."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from tests.helpers import quick, write_images
from tl_kit.finetuning import run as runs
from tl_kit.optimization.network_traits import ScaleFree, find_scale_free


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[ScaleFree]:
    """What is found from now on, where nothing is known yet."""
    found: list[ScaleFree] = []

    def find(model: nn.Module, size: Any) -> ScaleFree:
        found.append(find_scale_free(model, size))
        return found[-1]

    monkeypatch.setattr(runs, "_FOUND", OrderedDict())
    monkeypatch.setattr(runs, "find_scale_free", find)
    return found


def test_equal_networks_share_it_and_others_do_not(tmp_path: Path, looked_at: list[ScaleFree]) -> None:
    data = write_images(tmp_path / "images", images=6)
    for seed in (0, 1):
        quick(data, tmp_path / f"seed-{seed}", epochs=1, seed=seed)
    quick(data, tmp_path / "trained", epochs=1, weights=str(tmp_path / "seed-0"))
    assert len(looked_at) == 1
    quick(data, tmp_path / "larger", epochs=1, img_size=64)
    quick(data, tmp_path / "vit", epochs=1, model="test_vit", img_size=None)
    assert len(looked_at) == 3
    assert looked_at[0].batch
    assert not looked_at[2].batch, "it has no BatchNorm"


def test_it_is_what_the_network_itself_shows(looked_at: list[ScaleFree]) -> None:
    """Of any two that differ in a setting, or in a buffer that the output depends on, each has its own."""

    class Gated(nn.Module):
        def __init__(self, gate: float) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, bias=False)
            self.norm = nn.BatchNorm2d(4)
            self.head = nn.Linear(4, 2)
            self.register_buffer("gate", self.conv.weight.new_full((1,), gate))

        def forward(self, images: Any) -> Any:
            found = self.conv(images)
            return self.head((self.gate * self.norm(found) + (1 - self.gate) * found).mean((2, 3)))

    for gate in (1.0, 0.0, 1.0):
        assert runs._scale_free(Gated(gate), (3, 8, 8)) == find_scale_free(Gated(gate), (3, 8, 8))
    assert [bool(found.batch) for found in looked_at] == [True, False]


def test_no_more_than_a_few_are_kept(monkeypatch: pytest.MonkeyPatch, looked_at: list[ScaleFree]) -> None:
    monkeypatch.setattr(runs, "_KEPT", 2)
    for width in (1, 2, 3, 1):
        network = nn.Sequential(nn.Conv2d(3, width, 1), nn.Flatten(), nn.LazyLinear(2))
        network(network[0].weight.new_zeros(2, 3, 4, 4))
        runs._scale_free(network, (3, 4, 4))
    assert len(looked_at) == 4
    assert len(runs._FOUND) == 2

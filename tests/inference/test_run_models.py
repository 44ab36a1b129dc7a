"""Passes in turn, apart from any model: what happens between one and the next."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from tl_kit.inference import run_models as inference


class Noted:
    """A pass that notes its steps; its output is the mean of an image."""

    preprocessing = "any"

    def __init__(self, name: str, steps: list[str], *, on_gpu: bool) -> None:
        self.name, self.steps = name, steps
        self.runtime = SimpleNamespace(batch_size=2, on_gpu=on_gpu)

    def prepare(self) -> None:
        self.steps.append(f"prepare {self.name}")

    def release(self) -> None:
        self.steps.append(f"release {self.name}")

    def __call__(self, pixels: Tensor) -> Tensor:
        return pixels.float().mean(dim=(1, 2, 3))[:, None]


class Images:
    """Three images, each of its number."""

    views = 1

    def __len__(self) -> int:
        return 3

    def read(self, start: int, stop: int) -> dict[str, Tensor]:
        return {"any": torch.arange(start, stop, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 4, 4)}


@pytest.mark.parametrize("on_gpu", [False, True])
def test_the_heap_is_given_back_where_networks_run_in_it(monkeypatch: pytest.MonkeyPatch, on_gpu: bool) -> None:
    steps: list[str] = []
    monkeypatch.setattr(inference, "trim_memory", lambda: steps.append("trim"))
    passes = cast("Any", [Noted("a", steps, on_gpu=on_gpu), Noted("b", steps, on_gpu=on_gpu)])
    outputs = inference.run_models(passes, cast("Any", Images()))
    for output in outputs:
        torch.testing.assert_close(output, torch.tensor([[0.0], [1.0], [2.0]]))
    turn = ["prepare a", "release a", "prepare b", "release b"]
    compact = [part for step in turn for part in (["trim", step] if step.startswith("prepare") else [step])]
    assert steps == (turn if on_gpu else compact) * 2, "two batches, one a turn"

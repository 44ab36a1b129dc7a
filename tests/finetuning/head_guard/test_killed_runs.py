"""Guarded runs of all kinds that are killed and taken up again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tl_kit
from tests.finetuning.head_guard.helpers import run_on
from tests.killing import EVERY_STEP, Copies, assert_the_same, killing
from tl_kit import RegularizationConfig
from tl_kit.config import CacheConfig, RuntimeConfig

VARIANTS: dict[str, dict[str, Any]] = {
    "ema": {"policy": "full", "regularization": RegularizationConfig(ema=0.9)},
    "swa": {"policy": "last:2", "regularization": RegularizationConfig(swa=True)},
    "mixup": {"policy": "lp-ft", "regularization": RegularizationConfig(mixup=0.4)},
    "snapshots": {"policy": "full", "snapshots": 3},
    "late": {"policy": "last:2", "late": 2},
    "gradual": {"policy": "gradual"},
    "frozen statistics": {"policy": "full", "batchnorm": "frozen"},
    "balance": {"policy": "full", "balance": "loss", "select": "balanced-accuracy"},
    "select nll": {"policy": "full", "select": "nll"},
    "auto": {"policy": "auto"},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_killed_and_taken_up_again_it_ends_the_same(name: str, data: Path, tmp_path: Path) -> None:
    """And whatever else a run does, it ends no worse than its head, with scores that its checkpoint has."""
    options = {"save": EVERY_STEP, "cache": CacheConfig(directory=tmp_path / "cache"), **VARIANTS[name]}
    out = tmp_path / "run"
    copies = Copies(out)
    with killing(copies):
        run = run_on(data, out, **options)
    assert run.guard is not None
    compared = run.guard["compared"]
    assert compared[run.guard["kept"]]["bounded_nll"] <= compared["head"]["bounded_nll"]
    fp32 = RuntimeConfig(precision="fp32")
    assert tl_kit.evaluate(run.checkpoint, data, split="test", runtime=fp32).metrics == run.test
    whole = out.rename(tmp_path / "whole")
    tl_kit.resume(copies.restore(copies.seen - 1))
    assert_the_same(out, whole)

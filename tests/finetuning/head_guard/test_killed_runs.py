"""Guarded runs of all kinds that are killed and taken up again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import tl_kit
from tests.finetuning.head_guard.helpers import run_on
from tests.killing import EVERY_STEP, Killer, digest, killing, meta, rows
from tl_kit import RegularizationConfig
from tl_kit.config import CacheConfig, RuntimeConfig

VARIANTS: dict[str, dict[str, Any]] = {
    "ema": {"policy": "full", "regularization": RegularizationConfig(ema=0.9)},
    "swa": {"policy": "last:2", "regularization": RegularizationConfig(swa=True)},
    "mixup": {"policy": "lp-ft", "regularization": RegularizationConfig(mixup=0.4)},
    "dropped weights": {"policy": "full", "regularization": RegularizationConfig(drop_connect=0.3)},
    "snapshots": {"policy": "full", "snapshots": 3},
    "late": {"policy": "last:2", "late": 2},
    "gradual": {"policy": "gradual"},
    "frozen statistics": {"policy": "full", "batchnorm": "frozen"},
    "balance": {"policy": "full", "balance": "loss", "select": "balanced-accuracy"},
    "select nll": {"policy": "full", "select": "nll"},
    "no cache": {"policy": "lp-ft:2", "cache": CacheConfig(size_gb=0)},
    "auto": {"policy": "auto"},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_killed_and_taken_up_again_it_ends_the_same(name: str, data: Path, tmp_path: Path) -> None:
    """And whatever else a run does, it ends no worse than its head, with scores that its checkpoint has."""
    options = {"save": EVERY_STEP, "cache": CacheConfig(directory=tmp_path / "cache"), **VARIANTS[name]}
    counter = Killer(tmp_path / "whole")
    with killing(counter):
        run = run_on(data, tmp_path / "whole", **options)
    assert run.guard is not None
    compared = run.guard["compared"]
    assert compared[run.guard["kept"]]["bounded_nll"] <= compared["head"]["bounded_nll"]
    fp32 = RuntimeConfig(precision="fp32")
    assert tl_kit.evaluate(run.checkpoint, data, split="test", runtime=fp32).metrics == run.test
    killer = Killer(tmp_path / "killed", counter.seen - 1)
    with killing(killer):
        run_on(data, tmp_path / "killed", **options)
    tl_kit.resume(tmp_path / "killed")
    assert digest(tmp_path / "killed") == digest(tmp_path / "whole")
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")
    again, before = (json.dumps(meta(tmp_path / n)).replace(str(tmp_path / n), "") for n in ("killed", "whole"))
    assert again == before, "but for the folder's name"

"""The precision is measured once and remembered; a broken memory is measured anew; a named precision is obeyed."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from tests import children
from tl_kit import measurement
from tl_kit.config import RuntimeConfig
from tl_kit.errors import ConfigError
from tl_kit.measurement import choose_precision, runtime_report
from tl_kit.runtime import detect


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "tl-kit" / "runtime"


def decide(monkeypatch: pytest.MonkeyPatch, rates: dict[str, float], **options: Any) -> str:
    monkeypatch.setattr(measurement, "_measure", lambda *_args: rates)
    config = RuntimeConfig(**options)
    model = timm.create_model("test_vit", num_classes=2)
    return choose_precision(model, (3, 160, 160), detect(config), name="test_vit", config=config)[0].precision


@pytest.mark.parametrize(("bf16", "expected"), [(121.0, "bf16"), (119.0, "fp32"), (50.0, "fp32")])
def test_bf16_must_be_clearly_faster(monkeypatch: pytest.MonkeyPatch, bf16: float, expected: str) -> None:
    assert decide(monkeypatch, {"fp32": 100.0, "bf16": bf16}) == expected


def test_a_decision_holds_for_later_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert decide(monkeypatch, {"fp32": 100.0, "bf16": 300.0}) == "bf16"
    assert decide(monkeypatch, {"fp32": 300.0, "bf16": 100.0}) == "bf16"
    assert any("test_vit, 160 px" in line and "bf16 300" in line for line in runtime_report())


@pytest.mark.parametrize("damage", ["", "{}", "[]", json.dumps({"precision": "fp8", "images_per_second": {}})])
def test_a_damaged_memory_is_measured_anew(monkeypatch: pytest.MonkeyPatch, cache: Path, damage: str) -> None:
    decide(monkeypatch, {"fp32": 100.0, "bf16": 300.0})
    next(cache.glob("*.json")).write_text(damage)
    assert decide(monkeypatch, {"fp32": 300.0, "bf16": 100.0}) == "fp32"


@pytest.mark.parametrize("options", [{"precision": "bf16"}, {"precision": "fp32"}])
def test_a_named_precision_is_not_measured(monkeypatch: pytest.MonkeyPatch, options: dict[str, str]) -> None:
    assert decide(monkeypatch, {}, **options) == options["precision"]


def test_plain_is_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    assert decide(monkeypatch, {}, mode="plain") == "fp32"
    assert not detect(RuntimeConfig(mode="plain")).channels_last


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ConfigError, match="fp8"):
        detect(RuntimeConfig(precision="fp8"))


def test_a_cache_that_cannot_be_written_stops_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert decide(monkeypatch, {"fp32": 1.0, "bf16": 9.0}) == "bf16"


def test_the_real_measurement_gives_two_rates() -> None:
    model = timm.create_model("test_vit", num_classes=2)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    _, decision = choose_precision(model, (3, 160, 160), detect(), name="test_vit", config=RuntimeConfig())
    assert decision is not None
    assert set(decision.images_per_second) == {"fp32", "bf16"}
    assert all(rate > 0 for rate in decision.images_per_second.values())
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_bf16_that_overflows_is_not_chosen_however_fast(cache: Path) -> None:
    class Narrow(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            if torch.is_autocast_enabled("cpu"):
                return images.sum(dim=(1, 2, 3)) * torch.inf
            time.sleep(0.01)
            return images.sum(dim=(1, 2, 3))

    config = RuntimeConfig()
    runtime, decision = choose_precision(Narrow(), (3, 8, 8), detect(config), name="narrow", config=config)
    assert runtime.precision == "fp32"
    assert decision is not None
    assert decision.images_per_second["bf16"] == 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_peak_is_the_process_own_and_not_what_its_parent_held() -> None:
    held = bytearray(800_000_000)
    held[::4096] = b"x" * len(held[::4096])
    code = "from tl_kit.measurement import peak_memory; before = peak_memory(); held = b'x' * 300_000_000; "
    code += "del held; print(before, peak_memory())"
    done = children.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr
    before, after = map(int, done.stdout.split())
    assert before < 700e6 < len(held)
    assert 250e6 < after - before < 350e6

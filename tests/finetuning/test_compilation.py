"""torch.compile: used where it pays back, the same result, evaluation untouched."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers import NEARLY_SQUARE, quick, settings_of, write_images
from tl_kit import evaluate
from tl_kit.config import RuntimeConfig
from tl_kit.errors import ConfigError
from tl_kit.finetuning.build_task import compile_errors, pays_back

EAGER = "aot_eager"  # traces forward and backward as inductor would, and needs no C++ compiler


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), size=NEARLY_SQUARE)


def test_it_pays_back_from_the_length_where_the_gain_equals_the_cost() -> None:
    config = RuntimeConfig(compile_seconds=100.0, compile_gain=0.1, compile_rate=42.0, compile_side=200)
    # 1,000 s of training where it was measured
    assert not pays_back(41_999, 200 * 200, config=config)
    assert pays_back(42_001, 200 * 200, config=config)
    assert not pays_back(42_001, 100 * 100, config=config)
    assert pays_back(168_001, 100 * 100, config=config)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("policy", ["full", "last:2"])
def test_a_compiled_run_trains_the_same_model(data: Path, tmp_path: Path, policy: str, compilers: list[str]) -> None:
    weights, figures = [], []
    for mode in ("off", "on"):
        out = tmp_path / mode
        run = quick(data, out, policy=policy, runtime=RuntimeConfig(compile=mode, compile_backend=EAGER))
        weights.append(load_file(out / "model.safetensors"))
        figures.append(run.val)
        assert evaluate(out, data, split="val").metrics == run.val
    assert compilers == [EAGER]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=1e-3, atol=1e-4, msg=name)


def test_auto_leaves_a_short_run_alone_however_slow_it_seems(
    data: Path, tmp_path: Path, compilers: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = time.perf_counter
    monkeypatch.setattr(time, "perf_counter", lambda: clock() * 1e6)
    quick(data, tmp_path / "run")
    assert compilers == []
    assert settings_of(tmp_path / "run")["compiled"] is False


@pytest.mark.filterwarnings("ignore")
def test_auto_compiles_where_it_pays(data: Path, tmp_path: Path, compilers: list[str]) -> None:
    always = RuntimeConfig(compile_seconds=0.0, compile_backend=EAGER)
    quick(data, tmp_path / "full", runtime=always)
    quick(data, tmp_path / "plain", runtime=RuntimeConfig(mode="plain", compile_seconds=0.0, compile_backend=EAGER))
    quick(data, tmp_path / "twice", optimizer="adahessian", runtime=always)
    quick(data, tmp_path / "tail", policy="last:2", runtime=always)
    assert compilers == [EAGER]
    assert settings_of(tmp_path / "full")["compiled"] is True
    for name in ("full", "plain"):
        rows = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        assert [row["epoch"] for row in rows] == [1, 2], "each epoch is noted once"


def test_second_derivatives_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--compile on: .*second derivatives"):
        quick(data, tmp_path / "run", optimizer="adahessian", runtime=RuntimeConfig(compile="on"))


def test_a_compiler_that_fails_is_one_line() -> None:
    failure = type("Unsupported", (RuntimeError,), {"__module__": "torch._dynamo.exc"})
    with pytest.raises(ConfigError, match=r"no such operation.*--compile off"), compile_errors():
        raise failure("no such operation\nat length")
    with pytest.raises(RuntimeError, match="something else"), compile_errors():
        raise RuntimeError("something else")


@pytest.fixture
def compilers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The backends with which torch.compile was called."""
    seen: list[str] = []
    real = torch.compile

    def compile(module: torch.nn.Module, *, backend: str) -> object:
        seen.append(backend)
        return real(module, backend=backend)

    monkeypatch.setattr(torch, "compile", compile)
    return seen

"""The precision of inference follows from what the processor has and what the network is, never from a clock."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
from torch import nn

from tests.helpers import Listener, quick, same, told, weights, write_images
from tl_kit import evaluate, load
from tl_kit.config import RuntimeConfig
from tl_kit.errors import ConfigError
from tl_kit.machine import precision, processor
from tl_kit.machine.precision import choose_precision, precision_report, recorded_precision
from tl_kit.machine.processor import Processor
from tl_kit.machine.runtime import Runtime, detect

OLD = Processor("old", avx512=False, avx512_bf16=False, amx_bf16=False)
WIDE = replace(OLD, name="wide", avx512=True)
BF16 = replace(WIDE, name="bf16", avx512_bf16=True)
AMX = replace(BF16, name="amx", amx_bf16=True)
AUTO = RuntimeConfig()
CPU = Runtime(device=torch.device("cpu"), channels_last=True, batch_size=8)
CUDA, MPS = replace(CPU, device=torch.device("cuda")), replace(CPU, device=torch.device("mps"))
DEPTHWISE, DENSE = "test_efficientnet", "test_vit"
IMITATED, WITHOUT = "emulates: the same rounding, at up to 4 times", "lacks: computed in fp32"


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts another processor, or a GPU, in place of this machine's."""

    def put(found: Processor = OLD, *, gpu: bool = False) -> None:
        monkeypatch.setattr(precision, "processor", lambda: found)
        monkeypatch.setattr(precision, "gpu_has_bf16", lambda: gpu)

    return put


def network(name: str) -> nn.Module:
    model: nn.Module = timm.create_model(name, num_classes=2)
    return model


@pytest.mark.parametrize(
    ("found", "name", "expected", "reason"),
    [
        (OLD, DEPTHWISE, "fp32", "this processor has neither AVX512-BF16 nor AMX-BF16"),
        (WIDE, DEPTHWISE, "fp32", "neither"),
        (BF16, DEPTHWISE, "bf16", "this processor has AVX512-BF16"),
        (BF16, DENSE, "fp32", "this processor has AVX512-BF16, which speeds up depthwise convolutions alone"),
        (BF16, "test_convnext", "fp32", "depthwise convolutions alone"),  # has them, and LayerNorm
        (BF16, "test_resnet", "fp32", "depthwise convolutions alone"),
        (AMX, DEPTHWISE, "bf16", "this processor has AMX-BF16"),
        (AMX, DENSE, "bf16", "AMX-BF16"),
    ],
)
def test_a_cpu_decides_by_what_it_has_and_by_the_network(
    machine: Any, found: Processor, name: str, expected: str, reason: str
) -> None:
    machine(found)
    runtime, decision = choose_precision(network(name), CPU, AUTO)
    assert decision is not None
    assert (runtime.precision, decision.precision) == (expected, expected)
    assert decision.summary().startswith(f"precision of inference: {expected} (")
    assert reason in decision.summary()


@pytest.mark.parametrize("name", [DEPTHWISE, DENSE])
def test_a_gpu_decides_by_what_it_has(machine: Any, name: str) -> None:
    for gpu, expected in ((True, "bf16"), (False, "fp32")):
        machine(AMX, gpu=gpu)
        assert choose_precision(network(name), CUDA, AUTO)[0].precision == expected
    assert choose_precision(network(name), MPS, AUTO)[0].precision == "fp32"


def test_what_is_named_is_obeyed_and_plain_is_plain(machine: Any) -> None:
    machine(AMX)
    model = network(DENSE)
    for named in ("fp32", "bf16"):
        config = RuntimeConfig(precision=named)
        assert choose_precision(model, detect(config), config) == (detect(config), None)
        assert recorded_precision("fp32", model, detect(config), config)[0].precision == named
    plain = RuntimeConfig(mode="plain")
    assert choose_precision(model, detect(plain), plain)[0].precision == "fp32"
    assert not detect(plain).channels_last
    with pytest.raises(ConfigError, match="fp8"):
        detect(RuntimeConfig(precision="fp8"))


@pytest.mark.parametrize(
    ("recorded", "found", "runtime", "expected", "line"),
    [
        ("fp32", AMX, CPU, "fp32", None),
        ("bf16", AMX, CPU, "bf16", None),
        ("bf16", BF16, CPU, "bf16", None),  # also a network for which a new run would take fp32
        ("bf16", WIDE, CPU, "bf16", IMITATED),
        ("bf16", OLD, CPU, "fp32", WITHOUT),
        ("bf16", AMX, MPS, "fp32", WITHOUT),
        ("bf16", AMX, CUDA, "fp32", WITHOUT),
        ("fp32", OLD, MPS, "fp32", None),
        ("auto", AMX, CPU, "bf16", None),  # of earlier versions
        ("auto", OLD, CPU, "fp32", None),
    ],
)
def test_what_a_run_recorded_holds_where_the_device_can(
    machine: Any, recorded: str, found: Processor, runtime: Runtime, expected: str, line: str | None
) -> None:
    machine(found)
    settled, said = recorded_precision(recorded, network(DENSE), runtime, AUTO)
    assert settled.precision == expected
    assert said is None if line is None else line in str(said)


@pytest.mark.parametrize("found", [OLD, WIDE, BF16, AMX], ids=lambda found: found.name)
def test_the_doctor_says_what_a_run_would_do(machine: Any, found: Processor) -> None:
    machine(found)
    expected = {"bf16": "bf16 for networks of depthwise convolutions, else fp32", "amx": "bf16 (this"}
    assert expected.get(found.name, "fp32 (this") in precision_report(CPU)


def test_torch_and_linux_agree_on_this_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever of the three ways tells it; a machine that tells nothing has nothing."""
    whole = processor.processor.__wrapped__()
    questions = {name: getattr(torch.cpu, name) for name in processor._QUESTIONS.values()}
    with monkeypatch.context() as patch:
        patch.setattr(processor, "torch", SimpleNamespace(cpu=SimpleNamespace(**questions)))  # of an earlier version
        asked = processor.processor.__wrapped__()
    monkeypatch.setattr(processor, "_capabilities", dict)
    assert whole.avx512_bf16 == asked.avx512_bf16 == processor.processor.__wrapped__().avx512_bf16
    assert whole.avx512 == asked.avx512 == processor.processor.__wrapped__().avx512
    monkeypatch.setattr(processor, "_CPU_INFO", Path("/nowhere"))
    nothing = processor.processor.__wrapped__()
    assert (nothing.avx512, nothing.bf16) == (False, None)


@pytest.mark.parametrize("policy", ["head", "full"])
def test_a_slow_clock_changes_no_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: Any, policy: str
) -> None:
    """Twice the same command, once on a machine where everything seems to take for ever; and evaluate says the same."""
    machine(BF16)
    data = write_images(tmp_path / "images", images=5)
    runs = []
    for name in ("quick", "slow"):
        with monkeypatch.context() as patch:
            patch.setenv("XDG_CACHE_HOME", str(tmp_path / f"cache-{name}"))
            if name == "slow":
                _slow(patch)
            options: dict[str, Any] = {"policy": policy, "epochs": 1 if policy == "full" else None}
            runs.append(quick(data, tmp_path / name, model=DEPTHWISE, runtime=RuntimeConfig(), **options))
    assert same(weights(runs[0].checkpoint), weights(runs[1].checkpoint))
    assert (runs[0].val, runs[0].test) == (runs[1].val, runs[1].test)
    metas = [json.loads((Path(run.checkpoint) / "tlkit.json").read_text()) for run in runs]
    assert [meta["precision"] for meta in metas] == ["bf16", "bf16"]
    for split in ("val", "test"):
        assert evaluate(runs[0].checkpoint, data, split=split).metrics == getattr(runs[1], split)


def _slow(patch: pytest.MonkeyPatch) -> None:
    """Clocks that run a million times too fast."""
    for clock in ("perf_counter", "monotonic", "process_time"):
        real = getattr(time, clock)
        patch.setattr(time, clock, lambda real=real: real() * 1e6)


def test_a_checkpoint_predicts_as_recorded_on_any_machine(tmp_path: Path, machine: Any) -> None:
    machine(OLD)
    data = write_images(tmp_path / "images", images=5)
    heard = Listener()
    run = quick(data, tmp_path / "old", model=DEPTHWISE, runtime=RuntimeConfig(), epochs=1, reporter=heard)
    assert "precision of inference: fp32 (this processor has neither AVX512-BF16 nor AMX-BF16)" in heard.messages
    machine(AMX)
    assert load(run.checkpoint).scorers[0].runtime.precision == "fp32"
    assert evaluate(run.checkpoint, data).metrics == run.test
    run = quick(data, tmp_path / "new", model=DEPTHWISE, runtime=RuntimeConfig(), epochs=1)
    assert load(run.checkpoint).scorers[0].runtime.precision == "bf16"
    assert evaluate(run.checkpoint, data).metrics == run.test
    for found, expected, line in ((WIDE, "bf16", IMITATED), (OLD, "fp32", WITHOUT)):
        machine(found)
        heard = Listener()
        evaluate(run.checkpoint, data, reporter=heard)
        assert load(run.checkpoint).scorers[0].runtime.precision == expected
        told()  # what the second opening noted
        (said,) = [text for text in heard.messages if "recorded in bf16" in text]
        assert said.startswith(f"{run.checkpoint}: ")
        assert line in said

"""Threads fit the cores that the process may use; training precision follows the device."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from tl_kit.config import RuntimeConfig
from tl_kit.errors import ConfigError
from tl_kit.machine import runtime


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 64 cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)


@pytest.mark.usefixtures("cores")
@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("10000 100000", 1),
        ("max 100000", 64),
        ("9900000 100000", 64),
        ("", 64),
        ("what is this", 64),
    ],
)
def test_a_containers_limit_counts(limit: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpu.max").write_text(limit)
    monkeypatch.setattr(runtime, "_CPU_LIMIT", tmp_path / "cpu.max")
    assert runtime.available_cores() == expected


@pytest.mark.usefixtures("cores")
def test_without_a_container_the_mask_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "_CPU_LIMIT", tmp_path / "nothing")
    assert runtime.available_cores() == 64


def test_torch_never_starts_more_threads_than_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 32)
    monkeypatch.setattr(torch, "set_num_threads", given.append)
    for cores in (2, 64):
        monkeypatch.setattr(runtime, "available_cores", lambda cores=cores: cores)
        runtime.prepare_process.__wrapped__()
    assert given == [2, 32], "a smaller number of the user's is kept"


def test_training_on_a_cpu_is_in_full_precision() -> None:
    found = runtime.detect(RuntimeConfig(device="cpu"))
    assert (found.train_precision, found.on_gpu, found.batch_size) == ("fp32", False, RuntimeConfig.batch_size)
    with found.training():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Let torch find so many GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: SET.append(index))


SET: list[int] = []


@pytest.mark.parametrize(
    ("name", "count", "said"),
    [
        ("gpu", 1, "--device gpu: known are auto, cpu, cuda, cuda:N"),
        ("cuda:x", 1, "--device cuda:x: known are"),
        ("cpu:1", 1, "--device cpu:1: known are"),
        ("cuda:01", 2, "--device cuda:01: known are"),
        ("cuda:1", 1, "--device cuda:1: this machine has 1 GPU, cuda:0"),
        ("cuda", 0, "--device cuda: torch finds no CUDA GPU here"),
        ("cuda:2", 2, "--device cuda:2: this machine has 2 GPUs, numbered from 0"),
        ("mps", 0, "--device mps: torch finds no Apple GPU here"),
    ],
)
def test_a_device_that_is_not_there_is_named(name: str, count: int, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, count)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=said):
        runtime.detect(RuntimeConfig(device=name))


def test_the_device_that_was_named_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    found = [runtime.detect(RuntimeConfig(device=name)).device for name in ("auto", "cpu", "cuda", "cuda:1", "mps")]
    assert found == [torch.device(name) for name in ("cuda", "cpu", "cuda", "cuda:1", "mps")]
    assert SET[-1] == 1, "what names no device uses this one"
    assert runtime.present_device(RuntimeConfig(device="cuda:1")) == (RuntimeConfig(device="cuda:1"), None)
    elsewhere, line = runtime.present_device(RuntimeConfig(device="cuda:7"))
    assert elsewhere == RuntimeConfig(device="auto")
    assert line is not None
    assert "--device cuda:7" in line
    gpus(monkeypatch, 0)
    assert runtime.detect(RuntimeConfig(device="auto")).device == torch.device("mps")


@pytest.mark.parametrize(
    ("precision", "mode", "expected"),
    [
        ("auto", "auto", "bf16"),
        ("fp32", "auto", "fp32"),
        ("auto", "plain", "fp32"),
    ],
)
def test_training_on_a_gpu_is_in_bf16_where_it_has_it(
    precision: str, mode: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus(monkeypatch, 1)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    found = runtime.detect(RuntimeConfig(device="cuda", precision=precision, mode=mode))
    assert (found.train_precision, found.on_gpu, found.batch_size) == (expected, True, RuntimeConfig.gpu_batch_size)

"""Threads fit the cores that the process may use; training precision follows the device."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from tl_kit.config import RuntimeConfig
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
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    found = runtime.detect(RuntimeConfig(device="cuda", precision=precision, mode=mode))
    assert (found.train_precision, found.on_gpu, found.batch_size) == (expected, True, RuntimeConfig.gpu_batch_size)

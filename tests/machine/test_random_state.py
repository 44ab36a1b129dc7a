"""Blocks that restore torch's random state: the CPU's and that of one GPU, and no other's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tl_kit.machine.random_state import own_random_state, restored_random_state, seed_cpu

SOURCES = sorted((Path(__file__).parents[2] / "tl_kit").rglob("*.py"))


def test_the_cpus_state_comes_back() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    for block in (own_random_state(), restored_random_state(torch.device("cpu"))):
        torch.manual_seed(3)
        with block:
            seed_cpu(4)
            assert not torch.equal(torch.rand(2), expected)
        assert torch.equal(torch.rand(2), expected)


def test_only_the_device_that_is_named_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of four GPUs, of which a run uses the second."""
    asked, restored = [], []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: asked.append(device) or torch.zeros(1))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: restored.append(device))
    with restored_random_state(torch.device("cuda:1")):
        pass
    assert asked == restored == [torch.device("cuda:1")]


def test_no_block_asks_every_gpu() -> None:
    """``fork_rng()`` without devices warns on machines of several GPUs, and opens a context on each."""
    asking = [path for path in SOURCES if "fork_rng()" in path.read_text(encoding="utf-8")]
    assert len(SOURCES) > 100
    assert not asking

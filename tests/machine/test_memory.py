"""How much memory is free, in containers too; and a pixel store that shrinks before the process dies."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from tl_kit.machine import memory


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 100 bytes free, and control groups that are still to be made."""
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "_OWN_CGROUP", tmp_path / "self")
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 100}))
    return tmp_path


def group(folder: Path, limit: str, used: int, *, cached: int = 0, version: int = 2) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    for name, value in zip(names, (limit, used), strict=True):
        (folder / name).write_text(f"{value}\n")
    prefix = "" if version == 2 else "total_"
    (folder / "memory.stat").write_text(f"anon 5\n{prefix}inactive_file {cached}\n{prefix}active_file 1\n")


def test_without_control_groups_it_is_the_machines(machine: Path) -> None:
    assert memory.free_memory() == 100


@pytest.mark.parametrize(
    ("limit", "used", "cached", "free"), [("max", 5, 0, 100), ("90", 50, 0, 41), ("90", 85, 40, 46)]
)
def test_a_containers_bound_counts_and_its_cached_files_do_not(
    limit: str, used: int, cached: int, free: int, machine: Path
) -> None:
    group(machine / "cgroup", limit, used, cached=cached)
    assert memory.free_memory() == free


def test_the_tightest_of_all_groups_above_counts(machine: Path) -> None:
    (machine / "self").write_text("0::/jobs/mine\n")
    group(machine / "cgroup" / "jobs" / "mine", "max", 10)
    group(machine / "cgroup" / "jobs", "70", 50)
    group(machine / "cgroup", "1000", 50)
    assert memory.free_memory() == 21


def test_version_1(machine: Path) -> None:
    (machine / "self").write_text("5:cpu,memory:/docker/abc\n0::/\n")
    group(machine / "cgroup" / "memory" / "docker" / "abc", "80", 60, version=1)
    group(machine / "cgroup" / "memory", str(sys.maxsize), 60, version=1)
    assert memory.free_memory() == 21


def test_more_than_the_bound_is_nothing_and_nonsense_is_none(machine: Path) -> None:
    group(machine / "cgroup", "10", 50)
    assert memory.free_memory() == 0
    group(machine / "cgroup", "much", 50)
    (machine / "self").write_text("nonsense\n\n0::\n")
    assert memory.free_memory() == 100


def test_what_is_out_of_memory() -> None:
    assert memory.is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert memory.is_out_of_memory(MemoryError())
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**58, dtype=torch.uint8)
    assert memory.is_out_of_memory(caught.value), "torch's words on this machine"
    assert not memory.is_out_of_memory(RuntimeError("shapes do not fit"))

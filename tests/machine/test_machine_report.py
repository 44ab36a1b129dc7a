"""The memory that this process has taken is its own; what is said of the machine, and where decisions changed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests import children
from tl_kit.machine.machine_report import runtime_report


def test_what_earlier_versions_remembered_decides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = runtime_report()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "tl-kit" / "runtime").mkdir(parents=True)
    remembered = '{"precision": "bf16", "images_per_second": {"fp32": 1.0, "bf16": 9.0}, "model": "test_vit, 160 px"}'
    (tmp_path / "tl-kit" / "runtime" / f"{'0' * 32}.json").write_text(remembered)
    assert runtime_report() == before
    assert any(line.startswith("precision of inference: ") for line in before)
    assert any("used from 108,900 training images of 224 px on" in line for line in before)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_peak_is_the_process_own_and_not_what_its_parent_held() -> None:
    held = bytearray(800_000_000)
    held[::4096] = b"x" * len(held[::4096])
    code = "from tl_kit.machine.memory import peak_memory; before = peak_memory(); held = b'x' * 300_000_000; "
    code += "del held; print(before, peak_memory())"
    done = children.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr
    before, after = map(int, done.stdout.split())
    assert before < 700e6 < len(held)
    assert 250e6 < after - before < 350e6

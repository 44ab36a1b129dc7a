"""Benchmarks are too long to run here; what they import is there. One for GPUs has small sizes, and runs."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

from tests import children

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.mark.parametrize("script", sorted(BENCHMARKS.glob("*.py")), ids=lambda script: script.stem)
def test_what_a_benchmark_imports_exists(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    found = runpy.run_path(str(script))
    assert found["__doc__"], "says what it measures, and how it is called"


def test_the_benchmark_for_gpus_measures_every_part_on_a_cpu(tmp_path: Path) -> None:
    done = children.run([sys.executable, BENCHMARKS / "gpu.py", "--small", "--json", tmp_path / "gpu.json"])
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert "error" not in json.dumps(found)
    for row in found["networks"].values():
        assert all(part["images_per_second"] > 0 for part in row.values())
        assert 0 <= row["full"]["data_wait"] < 1
    for process in ("first", "second"):
        row = found["head"][process]
        stages = {name: s for name, s in row["stages"].items() if name not in ("total", "first_batch")}
        assert sum(stages.values()) == pytest.approx(row["stages"]["total"], rel=0.02)
        assert row["process"] >= row["stages"]["total"]
    assert found["decoding"]["pillow"] > 0
    assert "full / bare step" in done.stdout

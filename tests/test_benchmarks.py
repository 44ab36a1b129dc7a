"""Benchmarks are too long to run here; what they import is there. One for GPUs has small sizes, and runs."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

from tests.torture.processes import NO_FORKS, Forked

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.mark.parametrize("script", sorted(BENCHMARKS.glob("*.py")), ids=lambda script: script.stem)
def test_what_a_benchmark_imports_exists(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    found = runpy.run_path(str(script))
    assert found["__doc__"], "says what it measures, and how it is called"


def run_script(path: str, options: list[str]) -> None:
    sys.argv = [path, *options]
    sys.path.insert(0, str(BENCHMARKS))
    runpy.run_path(path, run_name="__main__")


@pytest.mark.skipif(NO_FORKS, reason="no fork server on this system")
def test_the_benchmark_for_gpus_measures_every_part_on_a_cpu(tmp_path: Path) -> None:
    options = ["--small", "--json", str(tmp_path / "gpu.json")]
    process = Forked(run_script, str(BENCHMARKS / "gpu.py"), options, log=tmp_path / "log", out=tmp_path / "out")
    assert process.wait() == 0, process.text()
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert "error" not in json.dumps(found)
    for row in found["networks"].values():
        assert all(part["images_per_second"] > 0 for part in row.values())
        assert 0 <= row["full"]["data_wait"] < 1
    row = found["head"]["first"]
    stages = {name: s for name, s in row["stages"].items() if name not in ("total", "first_batch")}
    assert sum(stages.values()) == pytest.approx(row["stages"]["total"], rel=0.02)
    assert row["process"] >= row["stages"]["total"]
    assert "head, first process" in (tmp_path / "out").read_text()
    assert found["decoding"]["pillow"] > 0
    assert "full / bare step" in (tmp_path / "out").read_text()

"""What ``plan`` says a run will take, against what the run then takes: seconds and the largest memory.

python benchmarks/plan_estimates.py --data PATH      # holds clothing/ and sign_digits/

Each plan and each run is a fresh process with an empty cache. Seconds are those that a run reports of itself, without
the start of Python; memory is the largest resident set. The last cell is clothing as it is, at the model's own size.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from image_sets import pools_of, write_cell
from machine import describe
from policies import MODEL, POLICIES, SIDE

import tl_kit
from tl_kit.machine.memory import peak_memory

RESULTS = Path(__file__).parent / "results" / "plan_estimates.json"
PER_CLASS = 20
BAR = 0.3


def planned(config: tl_kit.FinetuneConfig) -> dict[str, float]:
    found = tl_kit.plan(config).estimate
    return {"seconds": found.seconds, "bytes": found.bytes}


def run(config: tl_kit.FinetuneConfig) -> dict[str, float]:
    seconds = tl_kit.finetune(config).seconds["total"]
    return {"seconds": seconds, "bytes": peak_memory()}


def apart(what: str, cell: dict[str, Any]) -> dict[str, float]:
    """``planned`` or ``run`` in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--data", str(cell["data"]), "--cell", json.dumps({**cell, "out": folder})]
        done = subprocess.run([*command, "--what", what], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def figures(cost: dict[str, float]) -> str:
    return f"{cost['seconds']:.1f} s, {cost['bytes'] / 1e9:.2f} GB"


def config_of(cell: dict[str, Any]) -> tl_kit.FinetuneConfig:
    folder = Path(cell["out"])
    return tl_kit.FinetuneConfig(
        model=MODEL,
        data=Path(cell["data"]),
        policy=cell["policy"],
        img_size=cell["side"],
        out=folder / "run",
        cache=tl_kit.CacheConfig(directory=folder / "cache"),
    )


def cells_of(data: Path, scratch: Path) -> dict[str, dict[str, Any]]:
    table = scratch / "sign_digits.csv"
    write_cell(pools_of("sign_digits", data, scratch), PER_CLASS, 0, table)
    small = {
        f"sign digits, {PER_CLASS} a class, {policy}": {"data": str(table), "policy": policy, "side": SIDE}
        for policy in POLICIES
    }
    return {**small, "clothing, auto": {"data": str(data / "clothing"), "policy": "auto", "side": None}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--json", type=Path, default=RESULTS)
    parser.add_argument("--cell", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--what", choices=("planned", "run"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.what:
        print(json.dumps({"planned": planned, "run": run}[given.what](config_of(given.cell))))
        return
    content: dict[str, Any] = {"machine": describe(), "bar": BAR, "cells": {}}
    with tempfile.TemporaryDirectory() as scratch:
        for name, cell in cells_of(given.data, Path(scratch)).items():
            found = {what: apart(what, cell) for what in ("planned", "run")}
            off = {each: found["planned"][each] / found["run"][each] - 1 for each in ("seconds", "bytes")}
            content["cells"][name] = {**found, "off": off}
            costs = "; ".join(f"{what} {figures(cost)}" for what, cost in found.items())
            print(f"{name}: {costs}; off {off['seconds']:+.0%}, {off['bytes']:+.0%}", flush=True)
            given.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()

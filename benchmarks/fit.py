"""``tlkit fit`` within budgets, against ``tlkit finetune tf_efficientnet_lite0`` on the same images.

    python benchmarks/fit.py --data PATH --budgets 30s 2m                 # sets that defaults may be chosen by
    python benchmarks/fit.py --data PATH --sets clothing --budgets 10m --seeds 0 1 2

Each cell is a whole process with a cache of its own, its seconds those of a stopwatch beside it. Afterwards, outside of
the budget, every run of a fit is scored on the same test images, to compare the result with its best single checkpoint.
Finished cells are kept in the JSON file, and a second call goes on from there.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from image_sets import SETS, pools_of, write_cell
from machine import describe

import tl_kit
from tl_kit import metrics
from tl_kit.config import seconds_of

RESULTS = Path(__file__).parent / "results" / "fit.json"
REFERENCE = "finetune"
ALL = 10**6
TLKIT = (
    sys.executable,
    "-c",
    "from tl_kit.cli import main; from tl_kit.cli.startup import from_shell; from_shell(); main()",
)


def run(arguments: list[str], cache: Path) -> tuple[float, dict[str, Any]]:
    """The seconds of a whole process, and the JSON object that it prints."""
    started = time.monotonic()
    done = subprocess.run(
        [*TLKIT, *arguments, "--json"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "XDG_CACHE_HOME": str(cache)},
    )
    seconds = time.monotonic() - started
    if done.returncode:
        sys.stderr.write(done.stderr[-2000:])
        raise SystemExit(f"{' '.join(arguments)} failed")
    found: dict[str, Any] = json.loads(done.stdout)
    return seconds, found


def reference_cell(table: Path, seed: int, scratch: Path) -> dict[str, Any]:
    arguments = ["finetune", "tf_efficientnet_lite0", "--data", str(table), "--seed", str(seed)]
    seconds, found = run([*arguments, "--out", str(scratch / "run")], scratch / "cache")
    return {"seconds": seconds, "test": found["test"], "policy": found["policy"]}


def fit_cell(table: Path, budget: str, seed: int, scratch: Path) -> dict[str, Any]:
    arguments = ["fit", "--data", str(table), "--time", budget, "--seed", str(seed)]
    seconds, found = run([*arguments, "--out", str(scratch / "fit")], scratch / "cache")
    images = [row.rsplit(",", 2) for row in table.read_text().splitlines()[1:] if row.endswith(",test")]
    labels = np.array([found["classes"].index(label) for _, label, _ in images])
    paths = [path.strip('"') for path, _, _ in images]
    right = {str(scratch / "fit"): _right(scratch / "fit", paths, found["classes"], labels)}
    right |= {run.name: _right(run, paths, found["classes"], labels) for run in (scratch / "fit" / "runs").iterdir()}
    whole = right.pop(str(scratch / "fit"))
    best = max(right, key=lambda name: right[name].mean())
    apart = right[best].astype(float) - whole
    return {
        "seconds": seconds,
        "kept": seconds <= max(1.1 * seconds_of(budget), seconds_of(budget) + 5),
        "test": {name: found["test"][name] for name in ("accuracy", "balanced_accuracy", "nll")},
        "steps": [row["what"] for row in found["leaderboard"] if row["status"] == "finished"],
        "members": found["members"],
        "val": found["val"]["accuracy"],
        "best_single": {
            "name": best,
            "accuracy": float(right[best].mean()),
            "better_by": float(apart.mean()),
            "standard_error": float(apart.std(ddof=1) / np.sqrt(len(apart))),
        },
        "stopped": found["stopped"],
    }


def _right(folder: Path, paths: list[str], classes: list[str], labels: np.ndarray) -> np.ndarray:
    predictions = tl_kit.load(folder).predict(paths)
    probabilities = np.array([[each.probabilities[name] for name in classes] for each in predictions])
    return metrics.correct(probabilities, labels)


def show(cells: dict[str, dict[str, Any]], budgets: list[str]) -> None:
    columns = [REFERENCE, *budgets]
    places = sorted({key.rsplit("/", 1)[0] for key in cells})
    print(f"\n{'test accuracy (seconds)':24}" + "".join(f"{column:>18}" for column in columns))
    for place in places:
        found = [cells.get(f"{place}/{column}") for column in columns]
        shown = ["" if c is None else f"{100 * c['test']['accuracy']:.1f} ({c['seconds']:.0f})" for c in found]
        print(f"{place:24}" + "".join(f"{text:>18}" for text in shown))
    for budget in budgets:
        both = [p for p in places if f"{p}/{budget}" in cells and f"{p}/{REFERENCE}" in cells]
        if not both:
            continue
        gains = [
            100 * (cells[f"{p}/{budget}"]["test"]["accuracy"] - cells[f"{p}/{REFERENCE}"]["test"]["accuracy"])
            for p in both
        ]
        error = statistics.stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else float("nan")
        print(f"{budget} over {REFERENCE}: {statistics.mean(gains):+.1f} points (standard error {error:.1f})")
    fits = [cell for key, cell in cells.items() if "kept" in cell]
    late = [cell["best_single"] for cell in fits]
    worse = sum(each["better_by"] > 2 * each["standard_error"] for each in late)
    print(f"budget kept in {sum(cell['kept'] for cell in fits)} of {len(fits)} runs")
    print(f"a single checkpoint is better by more than two standard errors in {worse} of {len(fits)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", choices=SETS)
    parser.add_argument("--budgets", nargs="+", default=["30s", "2m", "10m"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--json", type=Path, default=RESULTS)
    parser.add_argument("--show", action="store_true", help="run nothing")
    given = parser.parse_args()
    content = json.loads(given.json.read_text()) if given.json.exists() else {"cells": {}}
    content["machine"] = describe()
    cells = content["cells"]
    with tempfile.TemporaryDirectory() as folder:
        for seed in () if given.show else given.seeds:
            for name in given.sets or [name for name, each in SETS.items() if not each.last_reading]:
                table = Path(folder) / f"{name}-{seed}.csv"
                write_cell(pools_of(name, given.data, Path(folder)), ALL, seed, table)
                for column in (REFERENCE, *given.budgets):
                    key = f"{name}/{seed}/{column}"
                    if key in cells:
                        continue
                    with tempfile.TemporaryDirectory() as scratch:
                        work = Path(scratch)
                        cells[key] = (
                            reference_cell(table, seed, work)
                            if column == REFERENCE
                            else fit_cell(table, column, seed, work)
                        )
                    print(key, cells[key], flush=True)
                    given.json.write_text(json.dumps(content, indent=1) + "\n")
    show(cells, given.budgets)


if __name__ == "__main__":
    main()

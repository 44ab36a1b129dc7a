"""Which policy is best, by data set and by images a class: the evidence behind ``--policy auto``.

    python benchmarks/policies.py --data PATH      # holds clothing/ and sign_digits/

Test images are set aside first, the same for every cell. Then, by seed, so many training images a class are drawn, and
a quarter as many (two at least) to validate on; a class that has fewer gives what it has. All policies see the same
images, at 128 px, by tl-kit's defaults.
Finished cells are kept in the JSON file, and a second call goes on from there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from image_sets import finetune_cell, pools_of, write_cell
from machine import describe

RESULTS = Path(__file__).parent / "results" / "policies.json"
MODEL, SIDE = "tf_efficientnet_lite0", 128
COUNTS = (5, 20, 100)
POLICIES = ("head", "last:2", "full", "lp-ft", "gradual", "auto")
SETS = ("clothing", "sign_digits", "digits")


def run_cell(name: str, table: Path, policy: str, seed: int, cache: Path) -> dict[str, float | str]:
    started = time.perf_counter()
    run = finetune_cell(name, table, policy, seed, cache, model=MODEL, side=SIDE)
    assert run.test is not None
    assert run.val is not None
    return {
        "test": run.test["accuracy"],
        "val": run.val["accuracy"],
        "nll": run.test["nll"],
        "policy": run.policy,
        "epochs": run.epochs,
        "seconds": time.perf_counter() - started,
    }


def show(cells: dict[str, dict[str, float | str]], seeds: list[int]) -> None:
    """Mean test accuracy by cell, and each policy's distance from the best fixed one."""
    print(f"\n{'cell':24}" + "".join(f"{policy:>10}" for policy in POLICIES))
    below: dict[str, list[float]] = {policy: [] for policy in POLICIES}
    for name in SETS:
        for count in COUNTS:
            keys = {p: [f"{name}/{count}/{p}/{seed}" for seed in seeds] for p in POLICIES}
            means = {
                p: 100 * statistics.mean(float(cells[k]["test"]) for k in ks)
                for p, ks in keys.items()
                if all(k in cells for k in ks)
            }
            fixed = [mean for policy, mean in means.items() if policy != "auto"]
            for policy, mean in means.items():
                below[policy].append(max(fixed, default=mean) - mean)
            print(f"{name + ', ' + str(count):24}" + "".join(f"{means.get(p, float('nan')):10.1f}" for p in POLICIES))
    mean_below = [statistics.mean(below[p]) if below[p] else float("nan") for p in POLICIES]
    print(f"{'mean points below best':24}" + "".join(f"{value:10.1f}" for value in mean_below))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=list(POLICIES))
    parser.add_argument("--counts", nargs="+", type=int, choices=COUNTS, default=list(COUNTS))
    parser.add_argument("--json", type=Path, default=RESULTS)
    given = parser.parse_args()
    content = json.loads(given.json.read_text()) if given.json.exists() else {"cells": {}}
    content["machine"] = describe()
    cells = content["cells"]
    with tempfile.TemporaryDirectory() as scratch:
        sets = {name: pools_of(name, given.data, Path(scratch)) for name in SETS}
        for seed in given.seeds:
            for count in given.counts:
                for name, pools in sets.items():
                    table = Path(scratch) / f"{name}-{count}-{seed}.csv"
                    write_cell(pools, count, seed, table)
                    for policy in given.policies:
                        key = f"{name}/{count}/{policy}/{seed}"
                        if key in cells:
                            continue
                        cells[key] = run_cell(name, table, policy, seed, Path(scratch) / "cache")
                        print(key, cells[key], flush=True)
                        given.json.write_text(json.dumps(content, indent=1) + "\n")
    show(cells, given.seeds)


if __name__ == "__main__":
    main()

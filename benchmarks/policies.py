"""Which policy is best, by data set and by images a class: the evidence behind ``--policy auto``.

    python benchmarks/policies.py --data PATH      # holds clothing/ and sign_digits/

Test images are set aside first, the same for every cell. Then, by seed, so many training images a class are drawn, and
a quarter as many (two at least) to validate on; a class that has fewer gives what it has. All policies see the same
images, at 128 px, by tl-kit's defaults.
Finished cells are kept in the JSON file, and a second call goes on from there.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import describe

import tl_kit
from tl_kit.demonstration import write_digits

RESULTS = Path(__file__).parent / "results" / "policies.json"
MODEL, SIDE = "tf_efficientnet_lite0", 128
COUNTS = (5, 20, 100)
POLICIES = ("head", "last:2", "full", "lp-ft", "gradual", "auto")
SETS = ("clothing", "sign_digits", "digits")
TEST_PER_CLASS = {"sign_digits": 60, "digits": 45}  # clothing has a test split of its own
MIRRORED = {"digits": 0.0}  # the mirror image of a 2 is none

Pools = dict[str, tuple[list[Path], list[Path]]]


def pools_of(name: str, data: Path, scratch: Path) -> Pools:
    """Test images and all others by class, the same in every call."""
    root = data / name
    if name == "digits":
        root = scratch / "digits"
        write_digits(root, side=64)
    found: dict[str, list[Path]] = {}
    for path in sorted(root.rglob("*")):
        if path.suffix.lower() in (".jpg", ".jpeg", ".png"):
            found.setdefault(path.parent.name, []).append(path)
    return {label: _set_aside(name, paths) for label, paths in found.items()}


def _set_aside(name: str, paths: list[Path]) -> tuple[list[Path], list[Path]]:
    if name not in TEST_PER_CLASS:
        test = [path for path in paths if path.parts[-3] == "test"]
        return test, [path for path in paths if path.parts[-3] != "test"]
    shuffled = [paths[i] for i in np.random.default_rng(0).permutation(len(paths))]
    return shuffled[: TEST_PER_CLASS[name]], shuffled[TEST_PER_CLASS[name] :]


def write_cell(pools: Pools, per_class: int, seed: int, out: Path) -> None:
    """The CSV of one cell: the same test images for all, training and validation images drawn by the seed."""
    with out.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split"])
        for label, (test, pool) in pools.items():
            drawn = [pool[i] for i in np.random.default_rng([seed, per_class]).permutation(len(pool))]
            val = max(2, per_class // 4)
            splits = {"test": test, "train": drawn[val : val + per_class], "val": drawn[:val]}
            for split, chosen in splits.items():
                writer.writerows([str(path), label, split] for path in chosen)


def run_cell(table: Path, policy: str, seed: int, cache: Path, *, flip: float) -> dict[str, float | str]:
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        config = tl_kit.FinetuneConfig(
            model=MODEL,
            data=table,
            policy=policy,
            img_size=SIDE,
            seed=seed,
            augment_options={} if policy == "head" or flip else {"flip": flip},
            out=Path(folder) / "run",
            cache=tl_kit.CacheConfig(directory=cache),
        )
        run = tl_kit.finetune(config)
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
                        flip = MIRRORED.get(name, 0.5)
                        cells[key] = run_cell(table, policy, seed, Path(scratch) / "cache", flip=flip)
                        print(key, cells[key], flush=True)
                        given.json.write_text(json.dumps(content, indent=1) + "\n")
    show(cells, given.seeds)


if __name__ == "__main__":
    main()

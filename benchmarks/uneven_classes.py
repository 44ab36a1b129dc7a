"""What ``--balance`` does where classes are uneven: the evidence behind its ``auto``.

    python benchmarks/uneven_classes.py --data PATH      # a folder with train/, val/ and test/ class folders

The training images are thinned to sizes that rise evenly from the smallest to the largest class (``LEVELS``); the seed
draws which class gets which size, and the images. Validation is thinned to a third of that, two images at least; test
stays whole. All arms see the same images, at 96 px, by tl-kit's defaults. Finished cells are kept in the JSON file, and
a second call goes on from there.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe

import tl_kit

RESULTS = Path(__file__).parent / "results" / "uneven_classes.json"
MODEL, SIDE = "tf_efficientnet_lite0", 96
LEVELS = {"5 to 90": (5, 90), "10 to 50": (10, 50), "10 to 30": (10, 30), "30 to 90": (30, 90)}
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "head none": ("head", {"balance": "none"}),
    "head loss": ("head", {"balance": "loss"}),
    "last:2 none, select accuracy": ("last:2", {"balance": "none", "select": "accuracy"}),
    "last:2 none": ("last:2", {"balance": "none", "select": "balanced-accuracy"}),
    "last:2 sampler": ("last:2", {"balance": "sampler", "select": "balanced-accuracy"}),
    "last:2 loss": ("last:2", {"balance": "loss", "select": "balanced-accuracy"}),
}
FIGURES = ("accuracy", "balanced_accuracy", "macro_f1", "nll")


def write_table(data: Path, sizes: tuple[int, int], seed: int, out: Path) -> None:
    """The CSV of one level and seed."""
    rng = np.random.default_rng(seed)
    classes = sorted(folder.name for folder in (data / "train").iterdir() if folder.is_dir())
    counts = rng.permutation(np.geomspace(*sizes, len(classes)).round().astype(int))
    with out.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split"])
        for label, count in zip(classes, counts, strict=True):
            for split, wanted in (("train", count), ("val", max(2, count // 3)), ("test", None)):
                paths = sorted((data / split / label).iterdir())
                drawn = paths if wanted is None else [paths[i] for i in rng.permutation(len(paths))[:wanted]]
                writer.writerows([str(path.absolute()), label, split] for path in drawn)


def run_cell(table: Path, arm: str, seed: int, cache: Path) -> dict[str, float]:
    policy, options = ARMS[arm]
    with tempfile.TemporaryDirectory() as folder:
        config = tl_kit.FinetuneConfig(
            model=MODEL,
            data=table,
            policy=policy,
            img_size=SIDE,
            seed=seed,
            out=Path(folder) / "run",
            cache=tl_kit.CacheConfig(directory=cache),
            **options,
        )
        run = tl_kit.finetune(config)
    assert run.test is not None
    return {name: run.test[name] for name in FIGURES} | {"epochs": run.epochs, "seconds": run.seconds["total"]}


def show(cells: dict[str, dict[str, float]], seeds: int) -> None:
    """Means over the seeds that have all arms of a policy, and the paired gain over none with its standard error."""
    print(f"\n{'':42}" + "".join(f"{name.replace('_', ' '):>20}" for name in FIGURES) + f"{'gain in balanced':>20}")
    for level in LEVELS:
        for plain in ("head none", "last:2 none"):
            arms = [arm for arm in ARMS if arm.split()[0] == plain.split()[0] and "select" not in arm]
            common = [s for s in range(seeds) if all(f"{level}/{arm}/{s}" in cells for arm in arms)]
            for arm in arms if len(common) > 1 else ():
                found, start = ([cells[f"{level}/{name}/{s}"] for s in common] for name in (arm, plain))
                means = [statistics.mean(cell[name] for cell in found) for name in FIGURES]
                texts = [f"{m:.3f}" if n == "nll" else f"{100 * m:.1f} %" for n, m in zip(FIGURES, means, strict=True)]
                key = "balanced_accuracy"
                gains = [100 * (a[key] - b[key]) for a, b in zip(found, start, strict=True)]
                texts.append(f"{statistics.mean(gains):+.1f} ± {statistics.stdev(gains) / len(gains) ** 0.5:.1f}")
                print(f"{level:12}{arm:30}" + "".join(f"{text:>20}" for text in texts) + f"  ({len(common)} seeds)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--levels", nargs="+", choices=LEVELS, default=list(LEVELS))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--json", type=Path, default=RESULTS)
    given = parser.parse_args()
    content = json.loads(given.json.read_text()) if given.json.exists() else {"cells": {}}
    content["machine"] = describe()
    with tempfile.TemporaryDirectory() as scratch:
        for level in given.levels:
            for seed in range(given.seeds):
                table = Path(scratch) / f"{seed}.csv"
                write_table(given.data, LEVELS[level], seed, table)
                for arm in given.arms:
                    key = f"{level}/{arm}/{seed}"
                    if key not in content["cells"]:
                        content["cells"][key] = run_cell(table, arm, seed, Path(scratch) / "cache")
                        print(key, content["cells"][key], flush=True)
                        given.json.write_text(json.dumps(content, indent=1) + "\n")
    show(content["cells"], given.seeds)


if __name__ == "__main__":
    main()

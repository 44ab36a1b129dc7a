"""What ensembles of different backbones gain: over the mean member, and over the best by validation.

    python benchmarks/ensembles.py --data PATH      # holds clothing/ and sign_digits/

Three members a cell, EfficientNet-Lite0, 1 and 2, on the same images: 20 training images a class, drawn by the seed, a
quarter as many to validate on, 128 px, tl-kit's defaults. The test images are the same in every cell. Intervals come
from drawing seeds and images with replacement, 10,000 times; the ECE is that of all seeds' predictions together.
The predictions of finished cells are kept in ``results/ensembles_cells``, and a second call goes on from there.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from image_sets import Pools, pools_of, write_cell
from machine import describe
from numpy.typing import NDArray
from policies import SIDE

import tl_kit
from tl_kit import metrics
from tl_kit.combining.calibration import fit_temperature, tempered
from tl_kit.storage.atomic import write_atomically, write_json

RESULTS = Path(__file__).parent / "results" / "ensembles.json"
CELLS = RESULTS.with_name("ensembles_cells")
MODELS = ("tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2")
SETS = ("clothing", "sign_digits")
POLICIES = ("head", "auto")
COUNT, SEEDS = 20, 5
DRAWS = 10_000

FloatArray = NDArray[np.float64]
Cell = dict[str, NDArray[Any]]


def train(table: Path, policy: str, seed: int, folder: Path, cache: Path) -> list[tl_kit.FinetuneResult]:
    return [
        tl_kit.finetune(
            tl_kit.FinetuneConfig(
                model=model,
                data=table,
                policy=policy,
                img_size=SIDE,
                seed=seed,
                out=folder / model,
                cache=tl_kit.CacheConfig(directory=cache),
            )
        )
        for model in MODELS
    ]


def files_of(table: Path, classes: tuple[str, ...], split: str) -> tuple[list[Path], list[int]]:
    rows = [line.split(",") for line in table.read_text().splitlines()[1:]]
    return [Path(p) for p, _, s in rows if s == split], [classes.index(c) for _, c, s in rows if s == split]


def run_cell(pools: Pools, policy: str, seed: int, scratch: Path) -> Cell:
    """The members' probabilities of val and test images, and the labels: all else follows from them."""
    table = scratch / f"{seed}.csv"
    write_cell(pools, COUNT, seed, table)
    with tempfile.TemporaryDirectory() as folder:
        runs = train(table, policy, seed, Path(folder), scratch / "cache")
        together = tl_kit.ensemble(
            tl_kit.EnsembleConfig(checkpoints=tuple(Path(run.checkpoint) for run in runs), out=Path(folder) / "all")
        )
        predictor = tl_kit.load(together.checkpoint)
        cell: Cell = {"policies": np.array([run.policy for run in runs])}
        for split in ("val", "test"):
            files, labels = files_of(table, predictor.classes, split)
            cell[split], _ = predictor.member_probabilities(files)
            cell[f"{split} labels"] = np.array(labels)
    return cell


def figures(cell: Cell) -> dict[str, FloatArray]:
    """By image of test: hits and losses of the ensemble (mean, then a temperature), its members, and the best one.

    Where the ensemble's NLL is after a temperature, so is each member's, fitted alike.
    """
    val, val_labels, test, labels = (cell[name] for name in ("val", "val labels", "test", "test labels"))
    best = best_member(val, val_labels)
    pooled, pooled_val = test.mean(0), val.mean(0)
    scaled = tempered(pooled, fit_temperature(pooled_val, val_labels))
    members = np.stack([tempered(t, fit_temperature(v, val_labels)) for t, v in zip(test, val, strict=True)])
    hits = np.stack([metrics.correct(member, labels) for member in test]).astype(float)
    return {
        "pooled": pooled,
        "scaled": scaled,
        "labels": labels,
        "hit": metrics.correct(pooled, labels).astype(float),
        "hit of the mean member": hits.mean(0),
        "hit of the best": hits[best],
        "loss": losses(pooled, labels),
        "loss of the mean member": np.mean([losses(member, labels) for member in test], axis=0),
        "loss, scaled": losses(scaled, labels),
        "loss of the mean member, scaled": np.mean([losses(member, labels) for member in members], axis=0),
    }


def best_member(val: FloatArray, labels: NDArray[np.int64]) -> int:
    """Of (m, n, k): the highest accuracy, ties to the lower NLL, as the receipt chooses."""
    return max(range(len(val)), key=lambda i: (metrics.accuracy(val[i], labels), -metrics.nll(val[i], labels)))


def losses(probabilities: FloatArray, labels: NDArray[np.int64]) -> FloatArray:
    found: FloatArray = -np.log(np.clip(probabilities[np.arange(len(labels)), labels], 1e-15, None))
    return found


def interval(statistic: Callable[[FloatArray], FloatArray], *tables: FloatArray) -> tuple[float, float, float]:
    """A statistic of the tables' means, (seeds, images) each, and its 95 % interval over seeds and images."""
    seeds, images = tables[0].shape
    rng = np.random.default_rng(0)
    of_seeds = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=DRAWS) / seeds
    of_images = rng.multinomial(images, np.full(images, 1 / images), size=DRAWS) / images
    drawn = statistic(np.stack([((of_seeds @ table) * of_images).sum(1) for table in tables]))
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(statistic(np.array([table.mean() for table in tables]))), float(low), float(high)


def summary(cells: list[Cell]) -> dict[str, Any]:
    """What all seeds say together of one data set and policy."""
    by_seed = [figures(cell) for cell in cells]
    table = {
        name: np.stack([each[name] for each in by_seed]) for name in by_seed[0] if name.startswith(("hit", "loss"))
    }
    together = {name: np.concatenate([each[name] for each in by_seed]) for name in ("pooled", "scaled", "labels")}

    def points(of: FloatArray) -> FloatArray:
        return np.asarray(100 * (of[0] - of[1]))

    def percent(of: FloatArray) -> FloatArray:
        return np.asarray(100 * (of[0] / of[1] - 1))

    return {
        "policies": ", ".join(sorted({str(policy) for cell in cells for policy in cell["policies"]})),
        "accuracy": float(100 * table["hit"].mean()),
        "accuracy of the mean member": float(100 * table["hit of the mean member"].mean()),
        "points over the mean member": interval(points, table["hit"], table["hit of the mean member"]),
        "points over the best by validation": interval(points, table["hit"], table["hit of the best"]),
        "NLL over the mean member's, %": interval(percent, table["loss"], table["loss of the mean member"]),
        "the same, each with a temperature, %": interval(
            percent, table["loss, scaled"], table["loss of the mean member, scaled"]
        ),
        "ECE, %": 100 * metrics.ece(together["pooled"], together["labels"]),
        "ECE with a temperature, %": 100 * metrics.ece(together["scaled"], together["labels"]),
        "argmax unchanged": bool((together["pooled"].argmax(1) == together["scaled"].argmax(1)).all()),
    }


def show(summaries: dict[str, dict[str, Any]]) -> None:
    for name, lines in summaries.items():
        print(f"\n{name}")
        for what, value in lines.items():
            if isinstance(value, (tuple, list)):
                print(f"  {what}: {value[0]:+.1f} ({value[1]:+.1f} to {value[2]:+.1f})")
            else:
                print(f"  {what}: {value:.1f}" if isinstance(value, float) else f"  {what}: {value}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=list(POLICIES))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(SEEDS)))
    parser.add_argument("--cells", type=Path, default=CELLS)
    parser.add_argument("--json", type=Path, default=RESULTS)
    given = parser.parse_args()
    given.cells.mkdir(parents=True, exist_ok=True)
    groups: dict[str, list[Cell]] = {}
    with tempfile.TemporaryDirectory() as folder:
        sets = {name: pools_of(name, given.data, Path(folder)) for name in SETS}
        for policy, seed, name in itertools.product(given.policies, given.seeds, SETS):
            file = given.cells / f"{name}-{policy}-{seed}.npz"
            if not file.exists():
                cell = run_cell(sets[name], policy, seed, Path(folder))
                write_atomically(file, lambda path, cell=cell: np.savez_compressed(path.open("wb"), **cell))
                print(file.stem, flush=True)
            with np.load(file) as kept:
                groups.setdefault(f"{name}, {policy}", []).append(dict(kept))
    summaries = {name: summary(cells) for name, cells in groups.items()}
    write_json(given.json, {"machine": describe(), "count": COUNT, "seeds": given.seeds, "summaries": summaries})
    show(summaries)


if __name__ == "__main__":
    main()

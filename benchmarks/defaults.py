"""The defaults on many image sets and networks: ``--policy auto``, every fixed policy, and plain references.

    python benchmarks/defaults.py --data PATH                              # sets that defaults may be chosen by
    python benchmarks/defaults.py --data PATH --last-reading               # sets that are read once, at the end
    python benchmarks/defaults.py --data PATH --network small_vit=vit_tiny_patch16_224,FOLDER@64

A cell is a network, a set, so many images a class, and a seed (``image_sets.write_cell``). The references are what
anybody could write in ten lines: scikit-learn's ``LogisticRegressionCV`` on the network's features, standardised or of
unit length, under a centre crop or squashed. They fit on the training images, as every run does; and, "with val", on
the validation images too, which a run keeps for its choices and for an honest score. Finished cells are kept in the
JSON file, and a second call goes on from there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from image_sets import SETS, finetune_cell, pools_of, write_cell
from machine import describe
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import LogisticRegressionCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from timm.data import create_transform, resolve_model_data_config

from tl_kit import metrics
from tl_kit.zoo.build_model import build_model

RESULTS = Path(__file__).parent / "results" / "defaults.json"
COUNTS = (5, 20, 100)
POLICIES = ("head", "last:2", "full", "lp-ft", "lp-ft:3", "gradual", "auto")
REFERENCES = tuple(f"{scale} {crop}" for scale in ("standardised", "unit") for crop in ("center", "squash"))
WITH_VAL = tuple(f"{reference} with val" for reference in REFERENCES)
FIGURES = ("accuracy", "balanced_accuracy", "nll")
Cells = dict[str, dict[str, float | str]]


@dataclass(frozen=True)
class Network:
    """A timm name, local weights ("auto": the usual ones), and the side of its input in pixels."""

    model: str
    weights: str
    side: int


NETWORKS = {
    "lite0": Network("tf_efficientnet_lite0", "auto", 96),
    "lite2": Network("tf_efficientnet_lite2", "auto", 96),
}


def parse_network(text: str) -> tuple[str, Network]:
    """``NAME=MODEL,WEIGHTS@SIDE``."""
    name, _, rest = text.partition("=")
    model, _, rest = rest.partition(",")
    weights, _, side = rest.rpartition("@")
    return name, Network(model, weights, int(side))


def run_policy(name: str, network: Network, table: Path, policy: str, seed: int, store: Path) -> dict:
    started = time.perf_counter()
    given = {"model": network.model, "weights": network.weights, "side": network.side}
    run = finetune_cell(name, table, policy, seed, store, **given)
    assert run.test is not None
    assert run.val is not None
    return {
        **{figure: run.test[figure] for figure in FIGURES},
        "val_nll": run.val["nll"],
        "policy": run.policy,
        "epochs": run.epochs,
        "seconds": time.perf_counter() - started,
    }


def rows_of(table: Path) -> Iterator[tuple[str, str, str]]:
    for line in table.read_text().splitlines()[1:]:
        path, label, split = line.rsplit(",", 2)
        yield path.strip('"'), label, split


def reference_features(network: Network, crop: str) -> Callable[[str], NDArray[np.float32]]:
    """Features of an image by its path, in the plainest way: timm's transform, one image at a time."""

    @cache
    def parts() -> tuple[torch.nn.Module, Callable[[Image.Image], torch.Tensor]]:
        model = build_model(network.model, 2, weights=network.weights, img_size=network.side, seed=0)[0].eval()
        data = {**resolve_model_data_config(model), "crop_mode": crop}
        return model, create_transform(**data, is_training=False)

    @cache
    def features(path: str) -> NDArray[np.float32]:
        model, transform = parts()
        with torch.inference_mode(), Image.open(path) as image:
            batch = transform(image.convert("RGB"))[None]
            return model.forward_head(model.forward_features(batch), pre_logits=True).numpy()[0]

    return features


def run_reference(features: Callable[[str], NDArray[np.float32]], table: Path, scale: str, *, with_val: bool) -> dict:
    started = time.perf_counter()
    rows = list(rows_of(table))
    x = np.stack([features(path) for path, _, _ in rows])
    y = np.unique([label for _, label, _ in rows], return_inverse=True)[1]
    splits = np.array([split for _, _, split in rows])
    fitted, test = (splits != "test") if with_val else (splits == "train"), splits == "test"
    folds = int(min(5, np.bincount(y[fitted]).min()))
    model = make_pipeline(
        StandardScaler() if scale == "standardised" else Normalizer(),
        LogisticRegressionCV(
            Cs=np.logspace(-5, 0, 11) if scale == "standardised" else np.logspace(-1, 4, 11),
            cv=max(2, folds),
            scoring="neg_log_loss",
            max_iter=300,
            use_legacy_attributes=False,
        ),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(x[fitted], y[fitted])
    scores = metrics.summary(model.predict_proba(x[test]), y[test])
    return {**{figure: scores[figure] for figure in FIGURES}, "seconds": time.perf_counter() - started}


def interval(differences: list[float]) -> tuple[float, float]:
    """95 % interval of the mean of paired differences, by 10,000 bootstrap draws of the cells."""
    values = np.array(differences)
    drawn = np.random.default_rng(0).integers(len(values), size=(10_000, len(values)))
    low, high = np.percentile(values[drawn].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def show(cells: Cells, columns: list[str], cases: list[str], seeds: list[int]) -> None:
    """The three figures by case, the means, and ``auto`` against each column with its interval."""
    pairs = ((case, seed) for case in cases for seed in seeds)
    complete = [pair for pair in pairs if all(f"{pair[0]}/{pair[1]}/{column}" in cells for column in columns)]
    if not complete:
        print("no cell is complete yet")
        return

    def value(figure: str, case: str, seed: int, column: str) -> float:
        found = float(cells[f"{case}/{seed}/{column}"][figure])
        return found if figure == "nll" else 100 * found

    for figure in FIGURES:
        digits = 3 if figure == "nll" else 1
        print(f"\n{figure}, mean over seeds\n{'':30}" + "".join(f"{column:>21}" for column in columns))
        for case in dict.fromkeys(case for case, _ in complete):
            mine = [seed for other, seed in complete if other == case]
            means = [statistics.mean(value(figure, case, seed, column) for seed in mine) for column in columns]
            print(f"{case + f' ({len(mine)})':30}" + "".join(f"{mean:21.{digits}f}" for mean in means))
        means = [statistics.mean(value(figure, *pair, column) for pair in complete) for column in columns]
        print(f"{f'all ({len(complete)} cells)':30}" + "".join(f"{mean:21.{digits}f}" for mean in means))
        if "auto" not in columns:
            continue
        for column in (column for column in columns if column != "auto"):
            gains = [value(figure, *pair, "auto") - value(figure, *pair, column) for pair in complete]
            low, high = interval(gains)
            mean, low, high = (f"{each:+.{digits}f}" for each in (statistics.mean(gains), *interval(gains)))
            print(f"  auto - {column:24}{mean:>8} ({low} to {high})")
    if "auto" in columns:
        _show_misses(value, complete, [column for column in columns if column != "auto"])


def _show_misses(value: Callable[..., float], complete: list[tuple[str, int]], columns: list[str]) -> None:
    """How far ``auto`` is below the best other column of each case, and where by more than 3 points and two errors."""
    below = []
    for case in dict.fromkeys(case for case, _ in complete):
        mine = [seed for other, seed in complete if other == case]
        means = {c: statistics.mean(value("accuracy", case, s, c) for s in mine) for c in columns}
        best = max(means, key=lambda column: means[column])
        gaps = [value("accuracy", case, s, best) - value("accuracy", case, s, "auto") for s in mine]
        below.append(max(0.0, statistics.mean(gaps)))
        error = statistics.stdev(gaps) / len(gaps) ** 0.5 if len(gaps) > 1 else 0.0
        if statistics.mean(gaps) > 3 and statistics.mean(gaps) > 2 * error:
            print(f"  {case}: auto {statistics.mean(gaps):.1f} points below {best} (standard error {error:.1f})")
    print(f"  auto is {statistics.mean(below):.2f} points below the best column, case by case")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--last-reading", action="store_true", help="the sets that no default may be chosen by")
    parser.add_argument("--sets", nargs="+", choices=SETS)
    parser.add_argument("--network", nargs="+", default=["lite0"], help="a known name, or NAME=MODEL,WEIGHTS@SIDE")
    parser.add_argument("--counts", nargs="+", type=int, default=list(COUNTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--columns", nargs="+", default=[*POLICIES, *REFERENCES, *WITH_VAL])
    parser.add_argument("--json", type=Path, default=RESULTS)
    parser.add_argument("--show", action="store_true", help="run nothing")
    given = parser.parse_args()
    names = given.sets or [name for name, each in SETS.items() if each.last_reading == given.last_reading]
    if not given.last_reading and any(SETS[name].last_reading for name in names):
        parser.error("these sets are for the last reading: give --last-reading")
    networks = {text: NETWORKS[text] for text in given.network if text in NETWORKS}
    networks |= dict(parse_network(text) for text in given.network if text not in NETWORKS)
    content = json.loads(given.json.read_text()) if given.json.exists() else {"cells": {}}
    content["machine"] = describe()
    cells: Cells = content["cells"]
    if not given.show:
        with tempfile.TemporaryDirectory() as scratch:
            for key, found in _run(given, names, networks, Path(scratch), cells):
                cells[key] = found
                print(key, found, flush=True)
                given.json.write_text(json.dumps(content, indent=1) + "\n")
    cases = [f"{network}/{name}/{count}" for network in networks for name in names for count in given.counts]
    show(cells, given.columns, cases, given.seeds)


def _run(
    given: argparse.Namespace, names: list[str], networks: dict[str, Network], scratch: Path, cells: Cells
) -> Iterator[tuple[str, dict[str, float | str]]]:
    """Every cell that is not there yet."""
    pools = {name: pools_of(name, given.data, scratch) for name in names}
    features = {
        (name, crop): reference_features(network, crop)
        for name, network in networks.items()
        for crop in ("center", "squash")
    }
    for seed in given.seeds:
        for count in given.counts:
            for (label, network), name in ((item, name) for item in networks.items() for name in names):
                table = scratch / f"{name}-{count}-{seed}.csv"
                write_cell(pools[name], count, seed, table)
                for column in given.columns:
                    key = f"{label}/{name}/{count}/{seed}/{column}"
                    if key in cells:
                        continue
                    if column in (*REFERENCES, *WITH_VAL):
                        scale, crop, *more = column.split()
                        yield key, run_reference(features[label, crop], table, scale, with_val=bool(more))
                    else:
                        yield key, run_policy(name, network, table, column, seed, scratch / "cache")


if __name__ == "__main__":
    main()

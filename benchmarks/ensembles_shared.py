"""Ensembles for the price of one: seconds of evaluation against one member's, and peak memory against the largest's.

python benchmarks/ensembles_shared.py --data PATH/TO/clothing

Times are those of ``tl_kit.evaluate``, loading included: one member, five that share layers, and the same five with
sharing turned off, in turn, in one process. Peaks are those of fresh processes, over the images of one split: each of
five different models alone (random weights; they cost as much as trained ones), then all five as an ensemble.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from machine import describe
from numpy.typing import NDArray

import tl_kit
from tl_kit.combining.fitted_rule import FittedRule
from tl_kit.config import CropConfig, RuntimeConfig
from tl_kit.images.transforms import Preprocessing
from tl_kit.machine.memory import peak_memory
from tl_kit.storage.checkpoint import save_config, save_meta, save_weights
from tl_kit.storage.ensemble_folder import write_ensemble

RESULTS = Path(__file__).parent / "results" / "ensembles_shared.json"
MEMBERS = 5
STRENGTHS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)  # heads on one trunk differ by their penalty
LARGE = ("resnet50", "convnext_tiny", "vit_small_patch16_224", "regnety_032", "tf_efficientnetv2_s")
SMALL = ("tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2", "resnet18", "regnety_004")
MEMORY_IMAGES = 96
BARS = {"head": 1.3, "last:2": 2.0, "memory": 1.2}


def train(policy: str, given: argparse.Namespace, folder: Path) -> list[Path]:
    """Five members that share the pretrained trunk."""
    made = []
    for number in range(MEMBERS):
        options: dict[str, Any] = {"optimizer_options": {"C": STRENGTHS[number]}} if policy == "head" else {}
        if policy != "head":
            options = {"seed": number, "epochs": given.epochs}
        config = tl_kit.FinetuneConfig(
            model="tf_efficientnet_lite0",
            data=given.data,
            policy=policy,
            img_size=given.img_size,
            out=folder / f"{policy.replace(':', '')}-{number}",
            cache=tl_kit.CacheConfig(directory=folder / "cache"),
            **options,
        )
        made.append(Path(tl_kit.finetune(config).checkpoint))
        print(f"{policy}: member {number + 1} of {MEMBERS}", flush=True)
    return made


def seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def apart_again(together: Path, files: list[Path]) -> tuple[NDArray[np.float64], dict[int, str]]:
    """The members of an ensemble, each through all of its own layers."""
    return replace(tl_kit.load(together), sharing=False).member_probabilities(files)


def times(policy: str, given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Evaluation of one member, of all five, and of all five without sharing."""
    members = train(policy, given, folder)
    config = tl_kit.EnsembleConfig(checkpoints=tuple(members), out=folder / f"ensemble-{policy[:4]}", bootstrap=50)
    together = Path(tl_kit.ensemble(config).checkpoint)
    tested = sorted((given.data / given.split).rglob("*.jpg"))
    predictor = tl_kit.load(together)
    shared, _ = predictor.member_probabilities(tested)
    apart, _ = apart_again(together, tested)
    cuts = [each.network.cuts() if each.network else [] for each in predictor.arranged.passes]

    rows = []
    for _ in range(given.repeats + 1):  # the first round warms up
        row = {
            "one": seconds(lambda: tl_kit.evaluate(members[0], given.data, split=given.split)),
            "five": seconds(lambda: tl_kit.evaluate(together, given.data, split=given.split)),
            "five apart": seconds(lambda: apart_again(together, tested)),
        }
        rows.append(row)
        print(policy, {name: round(value, 2) for name, value in row.items()}, flush=True)
    kept = rows[1:]
    medians = {name: statistics.median(row[name] for row in kept) for name in kept[0]}
    return {
        "cuts": cuts,
        "largest difference from plain": float(abs(shared - apart).max()),
        "equal argmax": bool((shared.argmax(-1) == apart.argmax(-1)).all()),
        "rounds": kept,
        "medians": medians,
        "ratio": statistics.median(row["five"] / row["one"] for row in kept),
        "bar": BARS[policy],
    }


def random_member(name: str, folder: Path) -> Path:
    """A checkpoint of ten classes with random weights."""
    model = timm.create_model(name, num_classes=10)
    classes = [f"class {number}" for number in range(10)]
    path = folder / name
    path.mkdir(parents=True)
    save_config(path, model, classes, Preprocessing.from_model(model))
    save_weights(path, model)
    save_meta(path, classes)
    return path


def peak(path: Path, given: argparse.Namespace) -> float:
    """Megabytes at the most of a fresh process that predicts with a checkpoint or an ensemble."""
    command = [sys.executable, __file__, "--data", str(given.data), "--peak", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def show_peak(given: argparse.Namespace) -> None:
    predictor = tl_kit.load(given.peak, runtime=RuntimeConfig(precision="fp32"))
    predictor.member_probabilities(sorted(given.data.rglob("*.jpg"))[:MEMORY_IMAGES])
    print(peak_memory() / 1e6)


def peaks(names: tuple[str, ...], given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Each model alone, and all as an ensemble: medians, since the heap's holes differ from run to run."""
    members = [random_member(name, folder / "members") for name in names]
    classes = [f"class {number}" for number in range(10)]
    (folder / "all").mkdir()
    write_ensemble(folder / "all", members, classes=classes, rule=FittedRule(), crops=CropConfig())
    paths = {**dict(zip(names, members, strict=True)), "together": folder / "all"}
    rounds = [{name: round(peak(path, given)) for name, path in paths.items()} for _ in range(given.repeats)]
    medians = {name: statistics.median(row[name] for row in rounds) for name in paths}
    print(medians, flush=True)
    ratio = medians["together"] / max(medians[name] for name in names)
    return {"rounds, MB": rounds, "medians, MB": medians, "ratio": ratio, "bar": BARS["memory"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--img-size", type=int, default=224)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=("times", "memory"))
    parser.add_argument("--json", type=Path, default=RESULTS)
    parser.add_argument("--peak", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.peak:
        show_peak(given)
        return
    content: dict[str, Any] = json.loads(given.json.read_text()) if given.only and given.json.exists() else {}
    content |= {"machine": describe(), "threads": torch.get_num_threads(), "img_size": given.img_size}
    with tempfile.TemporaryDirectory() as folder:
        if given.only != "memory":
            content["evaluation"] = {p: times(p, given, Path(folder)) for p in ("head", "last:2")}
        if given.only != "times":
            groups = {"large": LARGE, "small": SMALL}
            content["memory"] = {name: peaks(m, given, Path(folder) / name) for name, m in groups.items()}
    for part in ("evaluation", "memory"):
        for name, row in content.get(part, {}).items():
            print(f"{part}, {name}: {row['ratio']:.2f} (bar {row['bar']})")
    given.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()

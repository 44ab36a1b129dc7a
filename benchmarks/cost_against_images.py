"""Seconds of a run against the number of its training images, 100 to 10,000, for each policy; and the picture of it.

    python benchmarks/cost_against_images.py --data PATH/TO/clothing

The images are random pieces of those in the training folder, each nine tenths as wide and as high, saved again. A run
starts without a cache. `last:2` runs two epochs on two views, `full` one epoch. Finished cells are kept.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

import tl_kit

RESULTS = Path(__file__).parent / "results" / "cost_against_images.json"
PICTURE = Path(__file__).parent.parent / "docs" / "pictures" / "cost_against_images.png"
EPOCHS = {"head": None, "last:2": 2, "full": 1}
STYLES = {"head": ("#0072B2", "o", "-"), "last:2": ("#D55E00", "s", "--"), "full": ("#009E73", "^", "-.")}


def write_pieces(source: Path, folder: Path, count: int) -> None:
    """``count`` pieces of the training images into ``folder/train``, and a hundred of the others into val and test."""
    rng = np.random.default_rng(0)
    for split, wanted in (("train", count), ("val", 100), ("test", 100)):
        files = sorted((source / split).rglob("*.jpg"))
        for number in range(wanted):
            origin = files[int(number * len(files) / wanted) if wanted < len(files) else number % len(files)]
            out = folder / split / origin.parent.name
            out.mkdir(parents=True, exist_ok=True)
            with Image.open(origin) as image:
                w, h = image.size
                left, top = rng.integers(0, max(1, w // 10)), rng.integers(0, max(1, h // 10))
                piece = image.convert("RGB").crop((left, top, left + w * 9 // 10, top + h * 9 // 10))
            piece.save(out / f"{number}.jpg", quality=90)


def seconds(data: Path, policy: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        cache = tl_kit.CacheConfig(directory=Path(folder) / "cache", views=None if policy == "head" else 2)
        run = tl_kit.finetune(
            tl_kit.FinetuneConfig(
                model="tf_efficientnet_lite0",
                data=data,
                policy=policy,
                epochs=EPOCHS[policy],
                out=Path(folder) / "run",
                cache=cache,
            )
        )
    return run.seconds["total"]


def exponent(times: dict[str, float]) -> float:
    """b of seconds = a + c n^b is 1 where cost is linear: here the slope of log(seconds - a) for the best a."""
    counts = np.array([float(count) for count in times])
    spent = np.array(list(times.values()))
    best = (np.inf, 1.0)
    for start in np.linspace(0, 0.99 * spent.min(), 100):
        (slope, offset), residual = np.polyfit(np.log(counts), np.log(spent - start), 1, full=True)[:2]
        best = min(best, (float(residual[0]), float(slope)))
        del offset
    return best[1]


def draw(table: dict[str, dict[str, float]]) -> None:
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for policy, times in table.items():
        colour, marker, style = STYLES[policy]
        counts = [int(count) for count in times]
        extent = {"head": "features and fit", "last:2": "2 epochs, 2 views", "full": "1 epoch"}[policy]
        axes.plot(
            counts, list(times.values()), color=colour, marker=marker, linestyle=style, label=f"{policy} ({extent})"
        )
    axes.set(xscale="log", yscale="log", xlabel="training images", ylabel="seconds", title="Cost is linear in images")
    axes.grid(which="major", color="0.9")
    axes.legend(frameon=False)
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--counts", nargs="+", type=int, default=[100, 300, 1000, 3000, 10000])
    parser.add_argument("--json", type=Path, default=RESULTS)
    given = parser.parse_args()
    content: dict[str, Any] = json.loads(given.json.read_text()) if given.json.exists() else {}
    table: dict[str, dict[str, float]] = content.setdefault("seconds", {policy: {} for policy in EPOCHS})
    content["machine"] = describe()
    for count in given.counts:
        if all(str(count) in times for times in table.values()):
            continue
        with tempfile.TemporaryDirectory() as folder:
            write_pieces(given.data, Path(folder), count)
            for policy, times in table.items():
                if str(count) not in times:
                    times[str(count)] = seconds(Path(folder), policy)
                    print(f"{policy}, {count} images: {times[str(count)]:.1f} s", flush=True)
                    given.json.write_text(json.dumps(content, indent=1) + "\n")
    content["exponents"] = {policy: exponent(times) for policy, times in table.items()}
    print(content["exponents"])
    given.json.write_text(json.dumps(content, indent=1) + "\n")
    draw(table)


if __name__ == "__main__":
    main()

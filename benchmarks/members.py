"""Ways to get members, compared: snapshots at equal total epochs, uniform soups, heads on one frozen trunk.

    python benchmarks/members.py --data PATH      # holds clothing/ and sign_digits/

EfficientNet-Lite0 at 128 px, tl-kit's defaults where nothing is named; training images drawn by the seed, a quarter as
many to validate on, the same test images in every cell.

- snapshots: 100 images a class, ``last:2``. One run of 30 epochs; five snapshots of another under a cyclic rate; five
  independent runs of 6 epochs.
- soups: 40 a class, three seeds of ``full`` and of ``last:3``, at the usual rate and at a higher one. The soup with
  BatchNorm statistics as averaged and as re-estimated, either with a new head, and what the gatekeeper lets through.
- heads: 20 a class. Five on bootstrap samples, in closed form, and five reseeded, by gradient descent.

Intervals come from drawing seeds and images with replacement, 10,000 times; where a line has one seed, from images
alone. Temperatures are fitted on validation. Finished cells are kept in ``results/members_cells``, and a second call
goes on from there; the results are of all cells that are there.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ensembles import Cell, FloatArray, best_member, figures, interval
from image_sets import Pools, pools_of, write_cell
from machine import describe
from member_cells import heads, snapshots, soups

from tl_kit.storage.atomic import write_atomically, write_json

RESULTS = Path(__file__).parent / "results" / "members.json"
CELLS = RESULTS.with_name("members_cells")

Lines = dict[str, dict[str, FloatArray]]
Pairs = tuple[tuple[str, str], ...]

OF_SNAPSHOTS: Pairs = (
    ("snapshots, pooled", "one run"),
    ("short runs, pooled", "one run"),
    ("snapshots, pooled", "short runs, pooled"),
    ("snapshots, pooled", "snapshots, mean member"),
    ("short runs, pooled", "short runs, mean member"),
)
OF_SOUPS: Pairs = (
    ("as averaged", "members, best"),
    ("re-estimated", "as averaged"),
    ("as averaged, new head", "as averaged"),
    ("re-estimated, new head", "re-estimated"),
    ("re-estimated", "members, best"),
    ("shipped", "members, best"),
    ("shipped", "members, mean member"),
    ("members, pooled", "members, best"),
)
OF_HEADS: Pairs = tuple(
    (f"{kind}, pooled", other)
    for kind in ("bagged", "reseeded")
    for other in (f"{kind}, best", f"{kind}, mean member", "one head")
)


class Part(NamedTuple):
    """A line of the comparison: on which images, how its members are trained, and what is compared with what."""

    data: str
    per_class: int
    train: Callable[[Path, int, Path], Cell]
    pairs: Pairs


def soup(policy: str, **options: Any) -> Part:
    return Part("clothing", 40, partial(soups, options={"policy": policy, **options}), OF_SOUPS)


PARTS = {
    "snapshots, clothing": Part("clothing", 100, snapshots, OF_SNAPSHOTS),
    "heads, clothing": Part("clothing", 20, heads, OF_HEADS),
    "heads, sign_digits": Part("sign_digits", 20, heads, OF_HEADS),
    "soup of last:3": soup("last:3"),
    "soup of last:3, 8 epochs": soup("last:3", epochs=8),
    "soup of last:3, lr 0.1": soup("last:3", epochs=8, lr=0.1),
    "soup of full": soup("full", epochs=6),
    "soup of full, lr 0.1": soup("full", epochs=6, lr=0.1, batchnorm="train"),
}


def lines_of(cell: Cell) -> Lines:
    """By image of test, hits and losses: of each group's pooled predictions, and of its best and its mean member."""
    found: Lines = {}
    for name in [key.removesuffix(", test") for key in cell if key.endswith(", test")]:
        val, test = cell[f"{name}, val"], cell[f"{name}, test"]
        labels = {key: cell[key] for key in ("val labels", "test labels")}
        pooled = figures({"val": val, "test": test, **labels})
        if len(val) == 1:
            found[name] = of(pooled)
            continue
        best = [best_member(val, cell["val labels"])]
        found[f"{name}, pooled"] = of(pooled)
        found[f"{name}, best"] = of(figures({"val": val[best], "test": test[best], **labels}))
        found[f"{name}, mean member"] = of(pooled, " of the mean member")
    return found


def of(found: Mapping[str, FloatArray], whose: str = "") -> dict[str, FloatArray]:
    names = {"hit": f"hit{whose}", "loss": f"loss{whose}", "loss, scaled": f"loss{whose}, scaled"}
    return {name: found[key] for name, key in names.items()}


def summary(cells: Mapping[int, Cell], pairs: Pairs) -> dict[str, Any]:
    """What all seeds say together: each line's mean, and the differences with their intervals."""
    by_seed = [lines_of(cell) for cell in cells.values()]
    lines = {
        line: {what: np.stack([each[line][what] for each in by_seed]) for what in by_seed[0][line]}
        for line in by_seed[0]
    }

    def difference(of: FloatArray) -> FloatArray:
        return np.asarray(of[0] - of[1])

    differences = {
        f"{one} over {other}": {
            name: interval(difference, scale * lines[one][what], scale * lines[other][what])
            for name, what, scale in (
                ("points", "hit", 100),
                ("NLL", "loss", 1),
                ("NLL, each with a temperature", "loss, scaled", 1),
            )
        }
        for one, other in pairs
        if one in lines and other in lines
    }
    return {
        "seeds": list(cells),
        "lines": {
            line: {
                "accuracy, %": 100 * float(found["hit"].mean()),
                "accuracy by seed, %": [100 * float(row.mean()) for row in found["hit"]],
                "NLL": float(found["loss"].mean()),
                "NLL with a temperature": float(found["loss, scaled"].mean()),
            }
            for line, found in lines.items()
        },
        "differences": differences,
        "notes": [json.loads(str(cell["notes"])) for cell in cells.values()],
    }


def show(name: str, found: Mapping[str, Any]) -> None:
    print(f"\n{name}, seeds {', '.join(map(str, found['seeds']))}")
    for line, scores in found["lines"].items():
        nll = f"NLL {scores['NLL']:.3f}, with a temperature {scores['NLL with a temperature']:.3f}"
        print(f"  {line:26}{scores['accuracy, %']:6.1f} %   {nll}")
    for pair, scores in found["differences"].items():
        print(f"  {pair}:", "; ".join(f"{what} {told(*scores[what])}" for what in scores))
    if "snapshots, pooled" in found["lines"]:
        for kind in ("NLL", "NLL with a temperature"):
            print(f"  by {kind}: {standing(found['lines'], kind)}")
    for seed, notes in zip(found["seeds"], found["notes"], strict=True):
        for line in told_by_tlkit(notes):
            print(f"  seed {seed}: {line}")


def told(value: float, low: float, high: float) -> str:
    return f"{value:+.3g} ({low:+.3g} to {high:+.3g})"


def standing(lines: Mapping[str, Mapping[str, float]], kind: str) -> str:
    """Whether snapshots stand between one run and as many independent runs."""
    one, snapped, runs = (lines[name][kind] for name in ("one run", "snapshots, pooled", "short runs, pooled"))
    low, high = sorted((one, runs))
    where = "between" if low <= snapped <= high else "below both" if snapped < low else "above both"
    return f"snapshots ({snapped:.3f}) stand {where}: one run {one:.3f}, independent short runs {runs:.3f}"


def told_by_tlkit(notes: Mapping[str, Any]) -> list[str]:
    """The sentences of the receipts; and what the gatekeeper took, with its validation scores."""
    if "tried on val" not in notes:
        return [sentence for receipt in notes.values() for sentence in receipt["sentences"]]
    alone = [each for each in notes["tried on val"] if 1 in each["weights"]]
    best = min(alone, key=lambda each: (-each["accuracy"], each["nll"]))
    (taken,) = (each for each in notes["tried on val"] if each["chosen"])
    sound = taken["accuracy"] >= best["accuracy"] and taken["nll"] <= best["nll"]
    what = "the best member" if taken in alone else f"the soup, statistics {taken['batchnorm']}"
    scores = [f"{100 * each['accuracy']:.1f} %, NLL {each['nll']:.3f}" for each in (taken, best)]
    verdict = "no worse than" if sound else "WORSE THAN"
    return [f"gatekeeper took {what}: on val {scores[0]}, {verdict} the best member's {scores[1]}; {notes['settings']}"]


def train(name: str, seed: int, pools: Pools, scratch: Path, file: Path) -> None:
    started, part = time.perf_counter(), PARTS[name]
    table = scratch / f"{part.data}-{part.per_class}-{seed}.csv"
    write_cell(pools, part.per_class, seed, table)
    cell = part.train(table, seed, scratch / "cache")
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, lambda path: np.savez_compressed(path.open("wb"), **cell))
    print(f"{name}, seed {seed}: {time.perf_counter() - started:.0f} s", flush=True)


def slug(name: str) -> str:
    return re.sub(r"[^a-z0-9_.]+", "-", name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument(
        "--parts", nargs="*", choices=PARTS, default=list(PARTS), help="those to train; none: show only"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--cells", type=Path, default=CELLS)
    parser.add_argument("--json", type=Path, default=RESULTS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        names = {PARTS[name].data for name in given.parts}
        sets = {name: pools_of(name, given.data.resolve(), Path(folder)) for name in names}
        for seed in given.seeds:
            for name in given.parts:
                file = given.cells / slug(name) / f"{seed}.npz"
                if not file.exists():
                    train(name, seed, sets[PARTS[name].data], Path(folder), file)
    summaries = {}
    for name, part in PARTS.items():
        cells = {}
        for file in sorted((given.cells / slug(name)).glob("*.npz"), key=lambda file: int(file.stem)):
            with np.load(file) as kept:
                cells[int(file.stem)] = dict(kept)
        if cells:
            summaries[name] = {"per class": part.per_class, **summary(cells, part.pairs)}
            show(name, summaries[name])
    write_json(given.json, {"machine": describe(), "summaries": summaries})


if __name__ == "__main__":
    main()

"""``tlkit fit`` killed (SIGKILL) at random moments: is there a whole result, and does a resumed run end the same?

    python benchmarks/fit_kills.py --data PATH/TO/more/trashnet_waste --kills 20

One fit runs to its end. Then each trial starts the same fit anew, kills it and all its processes at a moment drawn
evenly from the first fit's time, opens the result on disk if there should be one, resumes, and compares the end with
the first fit's: the names of all steps, the members, and the validation figures. Images are few and small, so that
many trials fit into minutes; the time given to each fit is so long that it decides nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from fit import TLKIT
from image_sets import SETS, pools_of, write_cell
from machine import describe

import tl_kit

RESULTS = Path(__file__).parent / "results" / "fit_kills.json"
NETWORKS = "tf_efficientnet_lite0,tf_efficientnet_lite1"
LONG = "30m"


def start(arguments: list[str], cache: Path) -> subprocess.Popen[str]:
    """A fit under way, in a session of its own."""
    return subprocess.Popen(
        [*TLKIT, *arguments, "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "XDG_CACHE_HOME": str(cache)},
    )


def end(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What a fit says at its end. Raises SystemExit if it failed."""
    out, err = process.communicate()
    if process.returncode:
        raise SystemExit(err[-2000:])
    found: dict[str, Any] = json.loads(out)
    return found


def outcome(found: dict[str, Any]) -> dict[str, Any]:
    """The parts of a result that no clock and no kill may change; a test split may be read once more."""
    steps = [(row["name"], row["what"], row["status"], row["accuracy"], row["nll"]) for row in found["leaderboard"]]
    return {
        "steps": steps,
        "members": found["members"],
        "val": found["val"],
        "test": {**found["test"], "readings": None},
    }


def trial(options: list[str], moment: float, scratch: Path, image: Path) -> dict[str, Any]:
    """One fit, killed ``moment`` seconds after its start, and resumed."""
    out, cache = scratch / "fit", scratch / "cache"
    process = start([*options, "--out", str(out)], cache)
    try:
        process.wait(timeout=moment)
        alive = False
    except subprocess.TimeoutExpired:
        alive = True
    if alive:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    steps = len(list((out / "runs").iterdir())) if (out / "runs").is_dir() else 0
    result = "none"
    if any(out.glob("best*")):
        try:
            tl_kit.load(out).predict([image])
            result = "whole"
        except tl_kit.errors.TlKitError as error:
            result = f"broken: {error}"
    again = (
        ["fit", "--resume", str(out)] if (out / "state" / "journal.json").exists() else [*options, "--out", str(out)]
    )
    return {"moment": moment, "alive": alive, "runs": steps, "result": result, "end": outcome(end(start(again, cache)))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder of the sets")
    parser.add_argument("--set", default="waste", choices=SETS)
    parser.add_argument("--images", type=int, default=12, help="of each class")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=RESULTS)
    given = parser.parse_args()
    moments = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "images.csv"
        write_cell(pools_of(given.set, given.data, Path(folder)), given.images, given.seed, table)
        image = Path(table.read_text().splitlines()[1].rsplit(",", 2)[0].strip('"'))
        options = ["fit", "--data", str(table), "--time", LONG, "--models", NETWORKS, "--img-size", "64"]
        started = time.monotonic()
        first = outcome(end(start([*options, "--out", str(Path(folder) / "first")], Path(folder) / "cache")))
        seconds = time.monotonic() - started
        print(f"to its end: {seconds:.0f} s, steps {len(first['steps'])}, members {first['members']}", flush=True)
        trials = []
        for number in range(given.kills):
            with tempfile.TemporaryDirectory() as scratch:
                found = trial(options, moments.uniform(0, seconds), Path(scratch), image)
            last = found.pop("end")
            found["same"] = last == first
            if not found["same"]:
                found["other"] = last
            trials.append(found)
            print(number, {name: value for name, value in found.items() if name != "other"}, flush=True)
            content = {"machine": describe(), "seconds": seconds, "first": first, "trials": trials}
            given.json.write_text(json.dumps(content, indent=1) + "\n")
    alive = [each for each in trials if each["alive"]]
    print(f"killed while alive {len(alive)}, results {dict(Counter(each['result'] for each in alive))},")
    print(f"resumed to the same end {sum(each['same'] for each in alive)} of {len(alive)}")


if __name__ == "__main__":
    main()

"""A first run without a cache, and a second one on the same images with another seed, in the same process.

python benchmarks/second_run.py --data PATH/TO/clothing
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from machine import describe

import tl_kit

RESULTS = Path(__file__).parent / "results" / "second_run.json"


def pair(data: Path, policy: str) -> tuple[float, float]:
    """Seconds of both runs."""
    with tempfile.TemporaryDirectory() as folder:
        both = [
            tl_kit.finetune(
                tl_kit.FinetuneConfig(
                    model="tf_efficientnet_lite0",
                    data=data,
                    policy=policy,
                    seed=seed,
                    out=Path(folder) / f"run-{seed}",
                    cache=tl_kit.CacheConfig(directory=Path(folder) / "cache"),
                )
            ).seconds["total"]
            for seed in (0, 1)
        ]
    return both[0], both[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, default=RESULTS)
    given = parser.parse_args()
    pairs: dict[str, list[tuple[float, float]]] = {"head": [], "last:2": []}
    for _ in range(given.repeats):
        for policy, rows in pairs.items():
            rows.append(pair(given.data, policy))
            print(f"{policy}: {rows[-1][0]:.1f} s, then {rows[-1][1]:.1f} s", flush=True)
    ratios = {
        policy: statistics.median(first for first, _ in rows) / statistics.median(second for _, second in rows)
        for policy, rows in pairs.items()
    }
    print(ratios)
    given.json.write_text(json.dumps({"machine": describe(), "seconds": pairs, "ratios": ratios}, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Does fine-tuning beat the linear probe? Test accuracy of both policies over seeds, with the spread.

python benchmarks/last_layers_against_head.py --data PATH/TO/clothing --policies head last:2
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from machine import describe

import tl_kit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="tf_efficientnet_lite0")
    parser.add_argument("--policies", nargs="+", default=["head", "last:2"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    table: dict[str, list[dict[str, object]]] = {policy: [] for policy in arguments.policies}
    with tempfile.TemporaryDirectory() as folder:
        for policy in arguments.policies:
            for seed in range(arguments.seeds):
                run = tl_kit.finetune(
                    tl_kit.FinetuneConfig(
                        model=arguments.model,
                        data=arguments.data,
                        policy=policy,
                        seed=seed,
                        out=Path(folder) / f"{policy.replace(':', '-')}-{seed}",
                        cache=tl_kit.CacheConfig(directory=Path(folder) / "cache"),
                    )
                )
                assert run.test is not None
                table[policy].append({"seed": seed, "val": run.val, "test": run.test, "seconds": run.seconds})
                accuracy, nll, total = run.test["accuracy"], run.test["nll"], run.seconds["total"]
                print(f"{policy} seed {seed}: test {accuracy:.4f}, nll {nll:.3f}, {total:.1f} s")
    for policy, rows in table.items():
        found = [float(row["test"]["accuracy"]) for row in rows]
        print(f"{policy}: mean {statistics.mean(found):.4f}, from {min(found):.4f} to {max(found):.4f}")
    if arguments.json:
        content = {"machine": describe(), "model": arguments.model, "runs": table}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()

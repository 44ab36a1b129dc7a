"""tl-kit by its Python API, with an empty cache; ``--policy POLICY+again`` runs once before, uncounted."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import common


def main() -> None:
    given = common.arguments()
    import tl_kit

    policy, _, again = given.policy.partition("+")
    with tempfile.TemporaryDirectory() as folder:
        for number in range(2 if again else 1):
            import time

            if number:
                common.STARTED = time.perf_counter()
            out = Path(folder) / f"run-{number}"
            run = tl_kit.finetune(
                tl_kit.FinetuneConfig(
                    model=given.model,
                    data=given.data,
                    policy=policy,
                    epochs=given.epochs or None,
                    patience=given.epochs or None,
                    seed=number,
                    out=out,
                    cache=tl_kit.CacheConfig(directory=Path(folder) / "cache"),
                )
            )
        rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert run.test is not None
    common.finish(test_accuracy=run.test["accuracy"], train_rate=rows[-1].get("images_per_second"))


if __name__ == "__main__":
    main()

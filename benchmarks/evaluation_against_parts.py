"""Evaluation of a checkpoint against its parts: decoding all images alone, and running the network on them alone.

python benchmarks/evaluation_against_parts.py --data PATH/TO/clothing
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
from machine import describe

import tl_kit
from tl_kit.images.transforms import normalize
from tl_kit.inference.run_models import FileReader, model_context


def parts(predictor: tl_kit.Predictor, files: list[Path]) -> dict[str, float]:
    """Seconds of decoding alone and of the forward passes alone, at the checkpoint's own settings."""
    scorer = predictor.scorers[0]
    reader = FileReader(files, [scorer.preprocessing])
    size = scorer.runtime.batch_size
    started = time.perf_counter()
    batches = [reader.read(i, min(i + size, len(files)))[scorer.preprocessing] for i in range(0, len(files), size)]
    decoded = time.perf_counter()
    with model_context([scorer.model], scorer.runtime):
        for batch in batches:
            scorer.model(normalize(scorer.runtime.batch(batch), scorer.preprocessing))
    return {"decode": decoded - started, "forward": time.perf_counter() - decoded}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="tf_efficientnet_lite0")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        config = tl_kit.FinetuneConfig(model=given.model, data=given.data, policy="head", out=Path(folder) / "run")
        checkpoint = tl_kit.finetune(config).checkpoint
        files = sorted(given.data.rglob("*.jpg"))
        predictor = tl_kit.load(checkpoint)
        parts(predictor, files[:64])
        for _ in range(given.repeats):
            row = parts(predictor, files)
            started = time.perf_counter()
            tl_kit.evaluate(checkpoint, given.data, split="all")
            rows.append({**row, "evaluate": time.perf_counter() - started})
            print({name: round(seconds, 2) for name, seconds in rows[-1].items()}, flush=True)
    medians = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
    ratio = medians["evaluate"] / (medians["decode"] + medians["forward"])
    print(f"median ratio {ratio:.2f}")
    if given.json:
        content = {"machine": describe(), "threads": torch.get_num_threads(), "images": len(files)}
        given.json.write_text(
            json.dumps({**content, "medians": medians, "ratio": ratio, "runs": rows}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()

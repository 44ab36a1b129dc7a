"""The ``head`` policy against the least that anybody could do: decode every image and run the network on it once.

    python benchmarks/head_against_bare_pass.py --data PATH/TO/clothing

Both are timed in one process, in turn, each run with an empty cache; the ratio of medians counts. The bare pass is
written here with Pillow, torch and timm alone, in the best layout and precision.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import timm
import torch
from machine import describe
from PIL import Image
from timm.data import create_transform, resolve_model_data_config

import tl_kit
from tl_kit.machine.runtime import available_cores, keep_memory
from tl_kit.zoo.build_model import build_model

SUFFIXES = {".jpg", ".jpeg", ".png"}


def bare_pass(model: torch.nn.Module, files: list[Path], *, precision: str) -> dict[str, float]:
    """Seconds to decode all files on all cores, and then to run the network on them in batches of 32."""
    transform = create_transform(**resolve_model_data_config(model), is_training=False)

    def read(path: Path) -> torch.Tensor:
        with Image.open(path) as image:
            return transform(image.convert("RGB"))

    started = time.perf_counter()
    with ThreadPoolExecutor(available_cores()) as pool:
        images = list(pool.map(read, files))
    decoded = time.perf_counter()
    low = precision == "bf16"
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=low):
        for start in range(0, len(images), 32):
            model(torch.stack(images[start : start + 32]).contiguous(memory_format=torch.channels_last))
    return {"decode": decoded - started, "forward": time.perf_counter() - decoded}


def head(name: str, data: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds by stage and test scores of one run with an empty cache."""
    with tempfile.TemporaryDirectory() as folder:
        config = tl_kit.FinetuneConfig(
            model=name,
            data=data,
            policy="head",
            out=Path(folder) / "run",
            cache=tl_kit.CacheConfig(directory=Path(folder) / "cache"),
        )
        result = tl_kit.finetune(config)
    return result.seconds, result.test or {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="tf_efficientnet_lite0")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    keep_memory()
    files = sorted(f for f in arguments.data.rglob("*") if f.suffix.lower() in SUFFIXES)
    model = build_model(arguments.model, 10, seed=0)[0].eval().to(memory_format=torch.channels_last)
    bare_pass(model, files[:64], precision="fp32")
    rates = {p: bare_pass(model, files[:256], precision=p)["forward"] for p in ("fp32", "bf16")}
    precision = min(rates, key=lambda p: rates[p])
    head(arguments.model, arguments.data)  # settles the precision and warms the file cache, as the calls above did
    rows = []
    for _ in range(arguments.repeats):
        bare = bare_pass(model, files, precision=precision)
        seconds, test = head(arguments.model, arguments.data)
        rows.append({"bare": sum(bare.values()), **bare, "head": seconds["total"], "stages": seconds, "test": test})
        print(f"bare pass {rows[-1]['bare']:.2f} s, head {rows[-1]['head']:.2f} s, test {test.get('accuracy', 0):.4f}")
    medians = {key: statistics.median(row[key] for row in rows) for key in ("bare", "decode", "forward", "head")}
    summary = {
        "machine": describe(),
        "model": arguments.model,
        "images": len(files),
        "precision": precision,
        "versions": {"torch": torch.__version__, "timm": timm.__version__},
        "medians": medians,
        "ratio": medians["head"] / medians["bare"],
        "runs": rows,
    }
    print(f"median ratio {summary['ratio']:.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(summary, indent=1) + "\n")


if __name__ == "__main__":
    main()

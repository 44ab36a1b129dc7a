"""Training of all layers against the bare step: forward, backward and update on one batch that stays in memory.

python benchmarks/training_rate.py --data PATH/TO/clothing
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
from tl_kit.machine.runtime import detect
from tl_kit.zoo.build_model import build_model

STEPS = 8


def bare_rate(name: str, *, batch_size: int) -> float:
    """Images a second of a plain training step with SGD and momentum, channels last, on one batch in memory."""
    runtime = detect()
    model = runtime.place(build_model(name, 10, seed=0)[0]).train()
    images = runtime.batch(torch.randn(batch_size, *model.pretrained_cfg["input_size"]))
    labels = torch.arange(batch_size) % 10
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    for step in range(STEPS + 1):
        if step == 1:
            started = time.perf_counter()
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    return STEPS * batch_size / (time.perf_counter() - started)


def our_rates(name: str, data: Path) -> list[float]:
    """Images a second of two epochs of ``--policy full``, evaluation not counted."""
    with tempfile.TemporaryDirectory() as folder:
        config = tl_kit.FinetuneConfig(model=name, data=data, policy="full", epochs=2, out=Path(folder) / "run")
        tl_kit.finetune(config)
        rows = (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()
    return [float(json.loads(row)["images_per_second"]) for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="tf_efficientnet_lite0")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    bare: list[float] = []
    ours: list[float] = []
    for _ in range(given.repeats):
        bare.append(bare_rate(given.model, batch_size=32))
        ours += our_rates(given.model, given.data)
        print(f"bare step {bare[-1]:.1f} images/s, epochs {ours[-2]:.1f} and {ours[-1]:.1f}", flush=True)
    ratio = statistics.median(ours) / statistics.median(bare)
    print(f"median ratio {ratio:.2f}")
    if given.json:
        content = {"machine": describe(), "bare": bare, "full": ours, "ratio": ratio}
        given.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()

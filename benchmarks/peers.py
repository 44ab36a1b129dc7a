"""tl-kit and its peers side by side: same images, same pretrained weights, whole processes one after another.

    python benchmarks/peers.py --data PATH/TO/clothing --peers-python PEERS_VENV/bin/python

The peers' environment holds fastai, timm and scikit-learn (``pip install fastai timm scikit-learn``). AutoGluon wants
one of its own (``pip install autogluon.multimodal "torch<2.13" "torchvision<0.28"``), and
``--only "AutoGluon MultiModal"``. Seconds are those of the whole process, imports included; every tool starts without
any cache of its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import safetensors.torch
from machine import describe

from tl_kit.zoo.starter import starter_state_dict

MODEL = "tf_efficientnet_lite0"
RIVALS = Path(__file__).parent / "rivals"
# name: script, policy, epochs; 0: the tool's own number
RUNS = {
    "tl-kit head": ("use_tl_kit.py", "head", 0),
    "scikit-learn on timm features": ("use_plain_torch.py", "features", 0),
    "tl-kit last:2": ("use_tl_kit.py", "last:2", 0),
    "tl-kit full, 4 epochs": ("use_tl_kit.py", "full", 4),
    "plain loop last:2, 3 epochs": ("use_plain_torch.py", "last:2", 3),
    "fastai fine_tune(3)": ("use_fastai.py", "full", 3),
    "plain loop full, 3 epochs": ("use_plain_torch.py", "full", 3),
    "AutoGluon MultiModal": ("use_autogluon.py", "full", 0),
}
_IN_ONE_ENVIRONMENT = [name for name in RUNS if name != "AutoGluon MultiModal"]


def once(python: str, name: str, data: Path, weights: Path) -> dict[str, Any]:
    script, policy, epochs = RUNS[name]
    command = [python, str(RIVALS / script), "--data", str(data), "--weights", str(weights), "--model", MODEL]
    command += ["--policy", policy, "--epochs", str(epochs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode or not lines:
        sys.stderr.write(done.stderr[-2000:])
        raise SystemExit(f"{name} failed")
    result: dict[str, Any] = json.loads(lines[-1].removeprefix("RESULT "))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--peers-python", required=True)
    parser.add_argument("--only", nargs="+", choices=RUNS, default=_IN_ONE_ENVIRONMENT)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--once", nargs="+", choices=RUNS, default=[], help="not repeated")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    table: dict[str, list[dict[str, Any]]] = {name: [] for name in given.only}
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "model.safetensors"
        tensors = {name: tensor.contiguous() for name, tensor in starter_state_dict(MODEL).items()}
        safetensors.torch.save_file(tensors, weights)
        for repeat in range(given.repeats):
            for name in [name for name in given.only if not repeat or name not in given.once]:
                python = sys.executable if name.startswith("tl-kit") else given.peers_python
                table[name].append(once(python, name, given.data, weights))
                row = table[name][-1]
                rate = f", {row['train_rate']:.0f} images/s in training" if row["train_rate"] else ""
                print(
                    f"{name}: {row['seconds']:.1f} s, test {row['test_accuracy']:.4f}, {row['peak_mb']:.0f} MB{rate}",
                    flush=True,
                )
                if given.json:
                    given.json.write_text(json.dumps(_summary(table), indent=1) + "\n")


def _summary(table: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    done = {name: rows for name, rows in table.items() if rows}
    medians = {
        name: {key: statistics.median(row[key] for row in rows) for key in rows[0] if rows[0][key] is not None}
        for name, rows in done.items()
    }
    return {"machine": describe(), "model": MODEL, "medians": medians, "runs": done}


if __name__ == "__main__":
    main()

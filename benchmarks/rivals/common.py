"""What every tool's script shares: arguments in, one JSON line out. Runs in the tool's own environment."""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path

__all__ = ["arguments", "finish"]

STARTED = time.perf_counter()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True, help="safetensors in timm's names")
    parser.add_argument("--model", required=True)
    parser.add_argument("--policy", required=True)
    parser.add_argument("--epochs", type=int, required=True)
    return parser.parse_args()


def finish(*, test_accuracy: float, train_rate: float | None = None) -> None:
    """Print whole-process figures: seconds, the largest memory of this process and of its workers, accuracy.

    ``train_rate``: training images a second in the last epoch, without evaluation.
    """
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    figures = {
        "seconds": time.perf_counter() - STARTED,
        "peak_mb": peak / 1024,
        "test_accuracy": test_accuracy,
        "train_rate": train_rate,
    }
    sys.stdout.write("RESULT " + json.dumps(figures) + "\n")

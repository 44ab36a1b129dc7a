"""Linear probe: a logistic regression on the frozen network's features.

Razavian et al. 2014, "CNN Features off-the-shelf: an Astounding Baseline for Recognition".

    tlkit finetune tf_efficientnet_lite0 --data imgs --policy head
"""

from __future__ import annotations

from pathlib import Path

from tl_kit import FinetuneConfig, FinetuneResult, finetune

__all__ = ["linear_probe"]


def linear_probe(model: str, data: Path | str, *, seed: int = 0, out: Path | None = None) -> FinetuneResult:
    """One pass of the network over the images, then a convex fit; validation chooses the penalty."""
    return finetune(FinetuneConfig(model=model, data=Path(data), policy="head", seed=seed, out=out))

"""Full fine-tuning: every layer, from the pretrained weights, at a tenth of the from-scratch rate.

Girshick et al. 2014, "Rich feature hierarchies for accurate object detection and semantic segmentation" (R-CNN).

    tlkit finetune tf_efficientnet_lite0 --data imgs --policy full
"""

from __future__ import annotations

from pathlib import Path

from tl_kit import FinetuneConfig, FinetuneResult, finetune

__all__ = ["full_finetune"]


def full_finetune(
    model: str, data: Path | str, *, epochs: int | None = None, seed: int = 0, out: Path | None = None
) -> FinetuneResult:
    """Train all layers; validation images decide how much of the trained network is kept."""
    return finetune(FinetuneConfig(model=model, data=Path(data), policy="full", epochs=epochs, seed=seed, out=out))

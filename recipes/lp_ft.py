"""Linear probing, then fine-tuning: the head is fitted to the pretrained features before all layers train.

Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution": a random head's
gradient would change the layers below before the head means anything.

    tlkit finetune tf_efficientnet_lite0 --data imgs --policy lp-ft

Expected: 20 photos a class of hands that sign digits, at 128 px: 93.4 % (the head alone 78.8 %; docs/policies.md).
"""

from __future__ import annotations

from pathlib import Path

from tl_kit import FinetuneConfig, FinetuneResult, finetune

__all__ = ["lp_ft"]


def lp_ft(
    model: str, data: Path | str, *, epochs: int | None = None, seed: int = 0, out: Path | None = None
) -> FinetuneResult:
    """Fit the head, then train all layers from there; the fitted head is kept if no epoch is better on validation."""
    return finetune(FinetuneConfig(model=model, data=Path(data), policy="lp-ft", epochs=epochs, seed=seed, out=out))

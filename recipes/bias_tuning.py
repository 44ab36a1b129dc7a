"""BitFit: of the pretrained parameters only the biases train, after the head has been fitted.

Ben Zaken et al. 2022, "BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based Masked Language-models".

    tlkit finetune tf_efficientnet_lite0 --data imgs --policy bias

Expected: 20 photos a class of hands that sign digits, at 64 px: 83.0 % (docs/policies.md).
"""

from __future__ import annotations

from pathlib import Path

from tl_kit import FinetuneConfig, FinetuneResult, finetune

__all__ = ["bias_tuning"]


def bias_tuning(
    model: str, data: Path | str, *, epochs: int | None = None, seed: int = 0, out: Path | None = None
) -> FinetuneResult:
    """Fit the head, then train it with every bias of the network."""
    return finetune(FinetuneConfig(model=model, data=Path(data), policy="bias", epochs=epochs, seed=seed, out=out))

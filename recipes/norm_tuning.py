"""Scale and shift of the normalization layers train, after the head has been fitted; all other weights stay.

Frankle et al. 2021, "Training BatchNorm and Only BatchNorm: On the Expressive Power of Random Features in CNNs".

    tlkit finetune tf_efficientnet_lite0 --data imgs --policy norm

Expected: 20 photos a class of hands that sign digits, at 64 px: 84.8 % (docs/policies.md).
"""

from __future__ import annotations

from pathlib import Path

from tl_kit import FinetuneConfig, FinetuneResult, finetune

__all__ = ["norm_tuning"]


def norm_tuning(
    model: str, data: Path | str, *, epochs: int | None = None, seed: int = 0, out: Path | None = None
) -> FinetuneResult:
    """Fit the head, then train it with scale and shift of every normalization layer."""
    return finetune(FinetuneConfig(model=model, data=Path(data), policy="norm", epochs=epochs, seed=seed, out=out))

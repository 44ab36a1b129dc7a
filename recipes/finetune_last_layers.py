"""Fine-tuning of the last layers: the early layers are frozen, with their BatchNorm statistics.

Yosinski et al. 2014, "How transferable are features in deep neural networks?".

    tlkit finetune tf_efficientnet_lite0 --data imgs --policy last:2
"""

from __future__ import annotations

from pathlib import Path

from tl_kit import FinetuneConfig, FinetuneResult, finetune

__all__ = ["finetune_last_layers"]


def finetune_last_layers(
    model: str, data: Path | str, *, groups: int = 2, epochs: int | None = None, seed: int = 0, out: Path | None = None
) -> FinetuneResult:
    """Train the last ``groups`` groups of layers, counted from the head; validation decides how much of it is kept."""
    return finetune(
        FinetuneConfig(model=model, data=Path(data), policy=f"last:{groups}", epochs=epochs, seed=seed, out=out)
    )

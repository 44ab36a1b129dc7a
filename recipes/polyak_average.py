"""Polyak averaging: evaluates and keeps a moving average of the weights.

Polyak & Juditsky 1992, "Acceleration of Stochastic Approximation by Averaging".

    tlkit finetune tf_efficientnet_lite0 --data imgs --img-size 128 --policy last:2 --ema 0.99

Expected: on 1,000 photos of clothing, three seeds have 85.5, 84.7 and 85.2 % on test, against 84.4, 84.4 and 85.8 %
without it: no gain where the rate decays to zero anyway (docs/members.md).
"""

from __future__ import annotations

from pathlib import Path

from tl_kit import FinetuneConfig, FinetuneResult, RegularizationConfig, finetune

__all__ = ["polyak_average"]


def polyak_average(
    model: str,
    data: Path | str,
    *,
    decay: float = 0.99,
    policy: str = "auto",
    epochs: int | None = None,
    seed: int = 0,
    out: Path | None = None,
) -> FinetuneResult:
    """One model with averaged weights: a = d a + (1 - d) w after each step; d rises to ``decay`` at first."""
    config = FinetuneConfig(
        model=model,
        data=Path(data),
        policy=policy,
        epochs=epochs,
        regularization=RegularizationConfig(ema=decay),
        seed=seed,
        out=out,
    )
    return finetune(config)

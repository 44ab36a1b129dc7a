"""Average ensemble: train several models, average their probabilities at test time.

Hansen & Salamon 1990, "Neural Network Ensembles"; cs231n, "Model Ensembles": about 2 % extra.

    tlkit ensemble ckpts/*
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tl_kit import EnsembleConfig, EnsembleResult, FinetuneConfig, ensemble, finetune

__all__ = ["average_ensemble"]


def average_ensemble(models: Sequence[str], data: Path | str, *, policy: str = "auto", seed: int = 0) -> EnsembleResult:
    """Fine-tune each of ``models`` on the same splits, and average them; the receipt reports the gain."""
    runs = [
        finetune(FinetuneConfig(model=model, data=Path(data), policy=policy, seed=seed + number))
        for number, model in enumerate(models)
    ]
    return ensemble(EnsembleConfig(checkpoints=tuple(Path(run.checkpoint) for run in runs)))

"""Average ensemble: train several models, average their probabilities at test time.

Hansen & Salamon 1990, "Neural Network Ensembles"; cs231n, "Model Ensembles": about 2 % extra.

    tlkit finetune tf_efficientnet_lite0,tf_efficientnet_lite1 --data imgs --vary model --out members
    tlkit ensemble members/member-*
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tl_kit import EnsembleConfig, EnsembleResult, FinetuneConfig, ensemble, finetune_members

__all__ = ["average_ensemble"]


def average_ensemble(models: Sequence[str], data: Path | str, *, policy: str = "auto", seed: int = 0) -> EnsembleResult:
    """Fine-tune each of ``models`` on the same splits, and average them; the receipt reports the gain.

    Raises ConfigError for fewer than two models, and for one that is named twice.
    """
    names = models if isinstance(models, str) else ",".join(models)
    config = FinetuneConfig(model=names, data=Path(data), policy=policy, seed=seed)
    return ensemble(EnsembleConfig(checkpoints=finetune_members(config, vary="model").checkpoints))

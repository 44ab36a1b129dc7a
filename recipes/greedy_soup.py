"""Greedy soup: fine-tune from one fitted head several times, average the weights of those runs that help.

Wortsman et al. 2022, "Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing
inference time".

    tlkit ensemble ckpts/* --rule greedy-soup
"""

from __future__ import annotations

from pathlib import Path

from tl_kit import EnsembleConfig, EnsembleResult, FinetuneConfig, ensemble, finetune

__all__ = ["greedy_soup"]


def greedy_soup(
    model: str,
    data: Path | str,
    *,
    runs: int = 3,
    policy: str = "lp-ft",
    epochs: int | None = None,
    img_size: int | None = None,
    seed: int = 0,
) -> EnsembleResult:
    """One model: the average of the seeds' weights that validation keeps, or the best of them where none helps."""
    found = [
        finetune(
            FinetuneConfig(
                model=model, data=Path(data), policy=policy, epochs=epochs, img_size=img_size, seed=seed + number
            )
        )
        for number in range(runs)
    ]
    return ensemble(EnsembleConfig(checkpoints=tuple(Path(run.checkpoint) for run in found), rule="greedy-soup"))

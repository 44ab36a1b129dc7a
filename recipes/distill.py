"""Distillation: one model trained on the labels and on the averaged probabilities of several models.

Hinton, Vinyals & Dean 2015, "Distilling the Knowledge in a Neural Network"; Bucila, Caruana & Niculescu-Mizil 2006,
"Model Compression".

    tlkit ensemble ckpts/* --distill tf_efficientnet_lite0

Expected: photos of clothing at 96 px, three networks (Lite0 to 2) as teacher, `last:3`, three seeds: a student Lite0
has 86.8 % and an NLL of 0.432, the same network trained on labels alone 86.5 % and 0.449, the teacher 88.4 % and
0.379 (docs/ensembles.md).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tl_kit import Distillation, DistillConfig, FinetuneConfig
from tl_kit import distill as train

__all__ = ["distill"]


def distill(
    teacher: Path | str,
    model: str,
    data: Path | str,
    *,
    policy: str = "auto",
    img_size: int | None = None,
    temperature: float = DistillConfig.temperature,
    weight: float = DistillConfig.weight,
    seed: int = 0,
    out: Path | None = None,
) -> Distillation:
    """Fine-tune ``model`` with a checkpoint or an ensemble as its teacher; both are scored on the test images."""
    lesson = DistillConfig(teacher=Path(teacher).absolute(), temperature=temperature, weight=weight)
    config = FinetuneConfig(model=model, data=Path(data), policy=policy, img_size=img_size, seed=seed, out=out)
    return train(replace(config, distill=lesson))

"""Two views: one head on the features of two ways of an image into the square, its middle and all of it squashed.

Each of the two members sees every image in its own way. One logistic regression is fitted to their features side by
side, as for different backbones (rule concat).

    tlkit finetune tf_efficientnet_lite0 --data imgs --policy head --vary crop-mode --out m
    tlkit ensemble m/member-* --rule concat

It pays where images are not square, and costs two passes of the network an image; `tlkit plan` says by how much.
"""

from __future__ import annotations

from pathlib import Path

from tl_kit import EnsembleConfig, EnsembleResult, FinetuneConfig, ensemble, finetune_members

__all__ = ["two_views"]


def two_views(model: str, data: Path | str, *, out: Path | None = None) -> EnsembleResult:
    """Members ``center`` and ``squash``, whose layers below the head are the same, and the joint head."""
    config = FinetuneConfig(model=model, data=Path(data), policy="head", out=out)
    runs = finetune_members(config, vary="crop-mode")
    return ensemble(EnsembleConfig(checkpoints=runs.checkpoints, rule="concat"))

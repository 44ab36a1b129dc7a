"""The receipt of an ensemble of folds: it has no validation images, since all members but one have seen each image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from tl_kit import metrics
from tl_kit.combining.ensemble_rules import RULES
from tl_kit.combining.fitted_rule import FittedRule
from tl_kit.combining.predictions import SplitPredictions
from tl_kit.combining.receipt import Cost, Receipt, Worth, build_receipt
from tl_kit.errors import ConfigError
from tl_kit.score_kinds import OUT_OF_FOLD

__all__ = ["FoldReceipt", "HeldOut", "OutOfFoldScores", "build_fold_receipt", "check_fold_rule"]

FloatArray = NDArray[np.float64]
HeldOut = tuple[FloatArray, NDArray[np.int64]]
"""One member's probabilities (n, k) for the images that it has not seen, and their labels (n,)."""


class OutOfFoldScores(TypedDict):
    """Scores of single members, each on the images that it alone has not seen: over all images, and by member.

    They are not scores of the ensemble.
    """

    images: int
    kind: str
    scores: dict[str, float]
    members: list[dict[str, Any]]


class FoldReceipt(Receipt):
    """A receipt without validation scores. ``out_of_fold`` is None if the folds' images are missing."""

    out_of_fold: OutOfFoldScores | None


def check_fold_rule(rule: str) -> None:
    """Raises ConfigError for a rule that is fitted, since there are no images to fit it to."""
    free = [name for name, known in RULES.items() if known.fit is None]
    if rule not in free:
        raise ConfigError(
            f"--rule {rule}: is fitted on validation images, and folds leave none that no member has seen; use "
            f"{', '.join(free[:-1])} or {free[-1]}"
        )


def build_fold_receipt(
    checkpoints: Sequence[str],
    rule: str,
    *,
    held_out: Sequence[HeldOut] | None,
    test: SplitPredictions | None,
    samples: int,
    seed: int,
    kinds: Mapping[str, str],
    cost: Cost | None = None,
) -> FoldReceipt:
    """The receipt of an ensemble of folds: the members' out-of-fold scores, and all scores on separate test images.

    Args:
        checkpoints: the members' folders.
        rule: one without fitted parameters.
        held_out: each member's predictions of the images that it has not seen, in the order of ``checkpoints``.
        test: predictions of images that no member has seen, ``None`` without any.
        samples: resamples of the bootstrap.
        seed: of the resamples.
        kinds: the kind of the scores on ``test``.
        cost: the measured cost of a prediction.

    Raises:
        ConfigError: the rule is fitted, or ``samples`` is below 1.
    """
    check_fold_rule(rule)
    worth = Worth(members=[kinds] * len(checkpoints), ensemble=kinds)
    options: dict[str, Any] = {"samples": samples, "seed": seed, "cost": cost, "worth": worth}
    receipt = build_receipt(checkpoints, FittedRule(rule), validation=None, test=test, **options)
    return {**receipt, "out_of_fold": None if held_out is None else _out_of_fold(held_out)}


def _out_of_fold(held_out: Sequence[HeldOut]) -> OutOfFoldScores:
    probabilities, labels = (np.concatenate(parts) for parts in zip(*held_out, strict=True))
    return {
        "images": len(labels),
        "kind": OUT_OF_FOLD,
        "scores": metrics.summary(probabilities, labels),
        "members": [{"images": len(own), "scores": metrics.summary(p, own)} for p, own in held_out],
    }

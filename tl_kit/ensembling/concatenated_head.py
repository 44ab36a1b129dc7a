"""The rule ``concat``: one regularised linear head on all members' features, as new classifiers of the members."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tl_kit import metrics
from tl_kit.combining.derived import Derived, Loss, choose_out_of_fold, tried
from tl_kit.combining.fitted_rule import FittedRule
from tl_kit.combining.selection import Candidate, with_temperature
from tl_kit.config import HeadConfig
from tl_kit.ensembling.derived_members import write_member
from tl_kit.ensembling.evidence import Evidence
from tl_kit.ensembling.member_features import MemberFeatures
from tl_kit.errors import ConfigError, DataError
from tl_kit.inference.held_out_heads import as_scored_on
from tl_kit.inference.labelled import labels_for
from tl_kit.storage.checkpoint import digest_prefix, load_checkpoint
from tl_kit.training.logistic_regression import fit_heads
from tl_kit.zoo.heads import linear_classifier, set_linear

__all__ = ["Blocks", "block_probabilities", "concat", "fit_blocks"]

_NAME = "concat"
_POOL = FittedRule("logit-mean")


def concat(evidence: Evidence, scratch: Path, *, auto: bool) -> Candidate:
    """Fit the head to the training images' features; validation chooses the penalty, and the score is out of fold.

    Raises MemberError for a member without a linear classifier; ConfigError for too few images or, under ``auto``, for
    a fit that would take too long. Members that were fitted to validation images too count as they were before.
    """
    evidence = replace(evidence, predictor=as_scored_on(evidence.predictor, evidence.val))
    features = MemberFeatures(evidence, scratch)
    work = len(evidence.train) * len(evidence.predictor.classes) * sum(features.widths)
    if auto and work > evidence.config.fit.concat_multiplications:
        raise ConfigError(f"a step of its fit would take {work:,} multiplications; ask for it with --rule {_NAME}")
    penalties, blocks_of, trained = _fits(evidence, features)
    views = evidence.config.crops.views
    val, decoded = features(evidence.val, evidence.config.crops)
    if len(decoded) < len(evidence.val):
        raise DataError(f"{evidence.manifest.root}: validation images have changed since the scan; start anew")

    @cache
    def probabilities(c: float) -> NDArray[np.float64]:
        return _POOL(block_probabilities(blocks_of(c), val, views=views))

    def choose(loss: Callable[[float], Loss]) -> float:
        """The C with the lowest bounded NLL, the strongest penalty where several are equal."""
        return min(penalties, key=lambda c: loss(c).bounded)

    options: dict[str, Any] = {"folds": evidence.folds, "calibrate": evidence.config.calibrate}
    chosen, pooled = choose_out_of_fold(choose, probabilities, evidence.labels, **options)
    scores = tried(choose, probabilities, evidence.labels, calibrate=evidence.config.calibrate)
    record = {
        "rule": _NAME,
        "ingredients": [
            {**ingredient, "features": features.widths[evidence.order.index(number)]}
            for number, ingredient in enumerate(evidence.ingredients)
        ],
        "c": chosen,
        "train_images": len(trained),
        "tried": [
            {"c": c, "accuracy": 1 - loss.error, "nll": loss.nll, "chosen": c == chosen} for c, loss in scores.items()
        ],
    }
    derived = Derived(rule=_NAME, record=record, write=_writer(evidence, blocks_of(chosen), record, trained))
    return with_temperature(_POOL, pooled, evidence.labels, derived=derived, **options)


def _fits(
    evidence: Evidence, features: MemberFeatures
) -> tuple[tuple[float, ...], Callable[[float], Blocks], list[str]]:
    """Values of C from the lowest on, the members' classifiers for each, and the digests of the images trained on.

    Rows of classifiers are in the predictor's class order.
    """
    predictor = evidence.predictor
    train, kept = features(evidence.train)
    samples = [evidence.train[index] for index in kept]
    labels = labels_for(samples, evidence.manifest, predictor, evidence.manifest.root)
    if len(np.unique(labels)) < 2:
        raise ConfigError(f"rule {_NAME}: {evidence.manifest.root} has no training images of two classes")
    by_name = np.argsort(predictor.classes)  # the fit uses the order of names, not that of the first member
    rank = np.argsort(by_name)
    fits = fit_blocks(train, rank[labels], len(rank), config=evidence.config.head)

    def blocks(c: float) -> Blocks:
        return [(weight[rank], bias[rank]) for weight, bias in fits[c]]

    return tuple(fits), blocks, [digest_prefix(sample) for sample in samples]


def _writer(
    evidence: Evidence, blocks: Blocks, record: Mapping[str, Any], trained: Sequence[str]
) -> Callable[[Path], list[Path]]:
    """A function that writes each member, in the order given, with its new classifier."""
    members = evidence.predictor.members

    def write(folder: Path) -> list[Path]:
        return [one(folder / str(number), number) for number in range(len(members))]

    def one(folder: Path, number: int) -> Path:
        model = load_checkpoint(members[number].path, held_out=members[number].held_out).model
        found = linear_classifier(model)
        assert found is not None
        set_linear(found[1], *blocks[evidence.order.index(number)])
        name = f"{_NAME}-{members[number].path.name}"
        return write_member(folder / name, model, evidence=evidence, sources=[number], record=record, trained=trained)

    return write


Floats32 = NDArray[np.float32]


Blocks = list[tuple[Floats32, Floats32]]


def fit_blocks(
    features: Sequence[Floats32], labels: NDArray[np.int64], classes: int, *, config: HeadConfig
) -> dict[float, Blocks]:
    """The penalised logistic regressions on all members' features, one block a member, by scikit-learn's C.

    Args:
        features: one array (n, f_j) for each member.
        labels: (n,), at least two classes.
        classes: k.
        config: the strengths (C times n), and how they are fitted.
    """
    joint = np.concatenate(features, axis=1)
    ends = np.cumsum([part.shape[1] for part in features])[:-1]
    fits = fit_heads(joint, labels, classes, blocks=[part.shape[1] for part in features], config=config)
    found = {}
    for fit in fits:
        parts, bias = np.split(fit.weight, ends, axis=1), fit.bias.astype(np.float32)
        found[fit.c] = [((len(features) * weight).astype(np.float32), bias) for weight in parts]
    return found


def block_probabilities(blocks: Blocks, features: Sequence[Floats32], *, views: int) -> NDArray[np.float64]:
    """Members' probabilities (m, n, k) from features (n * views, f_j), averaged over views, with these classifiers."""
    found = []
    for (weight, bias), part in zip(blocks, features, strict=True):
        logits = part.astype(np.float64) @ weight.T.astype(np.float64) + bias
        found.append(metrics.softmax(logits).reshape(-1, views, len(bias)).mean(axis=1))
    return np.stack(found)

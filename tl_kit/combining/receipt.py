"""The receipt: scores of the members and of the ensemble, and whether their difference is more than noise."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from tl_kit import metrics
from tl_kit.combining.bootstrap import Gain, paired_gain
from tl_kit.combining.calibration import fit_temperature, tempered
from tl_kit.combining.contributions import Contribution, Subset, Subsets, leave_one_out, smallest_subset
from tl_kit.combining.diversity import disagreement
from tl_kit.combining.fitted_rule import FittedRule
from tl_kit.combining.predictions import SplitPredictions
from tl_kit.combining.selection import Candidate, Compared

__all__ = [
    "Calibration",
    "Cost",
    "MemberScores",
    "Receipt",
    "SplitScores",
    "Worth",
    "best_member",
    "build_receipt",
]

FloatArray = NDArray[np.float64]


class SplitScores(TypedDict):
    """Scores as :func:`tl_kit.metrics.summary` gives them; ``test`` is ``None`` without a test split.

    ``val`` is ``None`` only for folds (:mod:`tl_kit.combining.fold_receipt`).
    """

    val: dict[str, float] | None
    test: dict[str, float] | None


class MemberScores(SplitScores):
    """One member's scores, its folder, and what the ensemble loses without it (``None`` for a single member).

    ``kinds``: the kind of its scores on each split (:func:`tl_kit.storage.seen_images.kind_of`).
    """

    checkpoint: str
    kinds: dict[str, str]
    leave_one_out: dict[str, Contribution | None] | None


class Calibration(TypedDict):
    """The temperature (1: none), and NLL and ECE before and after it; ``val`` is out of fold, ``None`` for folds."""

    temperature: float
    val: dict[str, dict[str, float]] | None
    test: dict[str, dict[str, float]] | None


class Cost(TypedDict):
    """Cost of a prediction: forward passes an image, measured seconds an image, parameters, bytes of weights."""

    forward_passes: int
    seconds_per_image: float
    parameters: int
    weight_bytes: int


class Receipt(TypedDict):
    """Plain numbers, strings, lists and dicts, ready for JSON; the gains are ``None`` without a test split.

    ``kinds`` are the kinds of the ensemble's scores: ``val`` is ``selected on`` if it selected anything for the members
    or the ensemble (``chosen_by_val``). If anything was fitted, or the rule was chosen, the ``val`` scores are out of
    fold; they are then too optimistic only because validation selected the members. ``cost`` is ``None`` if not
    measured. ``derived`` says how a rule made new members, to which ``parameters`` then apply; ``members`` are always
    the given ones, whose contributions are then ``None``.
    """

    rule: str
    parameters: dict[str, Any]
    derived: dict[str, Any] | None
    images: dict[str, int | None]
    kinds: dict[str, str]
    chosen_by_val: list[str]
    members: list[MemberScores]
    ensemble: SplitScores
    gain: Gain | None
    gain_over_mean_member: Gain | None
    calibration: Calibration
    comparison: list[Compared]
    disagreement: dict[str, list[list[float]] | None]
    smallest_subset: Subset | None
    cost: Cost | None


@dataclass(frozen=True, kw_only=True)
class Worth:
    """Kinds of scores by split, of each member and of the ensemble; ``chose``: everything that validation chose."""

    members: Sequence[Mapping[str, str]] = ()
    ensemble: Mapping[str, str] = field(default_factory=dict)
    chose: Sequence[str] = ()


_UNSAID = Worth()


def build_receipt(
    checkpoints: Sequence[str],
    rule: FittedRule,
    *,
    validation: Subsets | None,
    test: SplitPredictions | None,
    samples: int,
    seed: int,
    comparison: Sequence[Compared] = (),
    cost: Cost | None = None,
    made: FloatArray | None = None,
    worth: Worth = _UNSAID,
) -> Receipt:
    """Scores of all members and of the ensemble, its gain on test, and each member's contribution.

    Args:
        checkpoints: the members' folders, in the order of the predictions' first axis.
        rule: fitted to all members, or to those that it made.
        validation: the predictions to which the rule was fitted; they alone choose the member to compare with. ``None``
            without validation images; the rule must then be one that is not fitted.
        test: predictions on the test split, ``None`` if there is none.
        samples: resamples of :func:`paired_gain`, drawn from ``seed``.
        comparison: the table of all rules, if the rule was chosen among them.
        cost: the measured cost of a prediction.
        made: the test predictions of the members that the rule made, if it made any.
        worth: the kinds of the scores.

    Raises:
        ConfigError: ``samples`` is below 1.
        ValueError: the numbers of members do not agree, or values are no probabilities.
    """
    val = None if validation is None else SplitPredictions(members=validation.stack, labels=validation.labels)
    splits = {"val": val, "test": test}
    _check(checkpoints, splits.values())
    whole = None if validation is None else validation.whole
    derived = None if whole is None else whole.derived
    alone = len(checkpoints) > 1 and derived is None  # a member can be left out
    contributions = leave_one_out(rule, len(checkpoints), validation=validation, test=test) if alone else None
    subset = smallest_subset(validation, test=test, samples=samples) if alone and validation is not None else None
    members = _members(checkpoints, val, test, contributions, worth)
    pooled = None if test is None else rule.pool(test.members if made is None else made)
    gains = _gains(rule, pooled, members, validation, test, samples=samples, seed=seed)
    on_test = None if pooled is None else tempered(pooled, rule.temperature)
    return {
        "rule": rule.rule if whole is None else whole.rule,
        "parameters": dict(rule.parameters),
        "derived": None if derived is None else dict(derived.record),
        "images": {name: None if split is None else len(split.labels) for name, split in splits.items()},
        "kinds": dict(worth.ensemble),
        "chosen_by_val": list(worth.chose),
        "members": members,
        "ensemble": {"val": _summary(None if whole is None else whole.estimate, val), "test": _summary(on_test, test)},
        "gain": gains[0],
        "gain_over_mean_member": gains[1],
        "calibration": _calibration(rule, whole, pooled, val, test),
        "comparison": list(comparison),
        "disagreement": {name: None if each is None else disagreement(each.members) for name, each in splits.items()},
        "smallest_subset": subset,
        "cost": cost,
    }


def _check(checkpoints: Sequence[str], splits: Iterable[SplitPredictions | None]) -> None:
    for split in splits:
        if split is not None and (len(split.members) != len(checkpoints) or not checkpoints):
            raise ValueError(f"want at least one member, got {len(checkpoints)} names for {len(split.members)} members")


def best_member(members: Sequence[MemberScores]) -> int:
    """Index of the highest validation accuracy; ties go to the lower validation NLL, then to the earlier member."""
    scores = [member["val"] for member in members]
    if None in scores:
        raise ValueError("members without validation scores cannot be ranked")
    ranked = [(-each["accuracy"], each["nll"]) for each in scores if each is not None]
    return min(range(len(members)), key=lambda i: ranked[i])


def _summary(probabilities: FloatArray | None, split: SplitPredictions | None) -> dict[str, float] | None:
    return None if probabilities is None or split is None else metrics.summary(probabilities, split.labels)


def _members(
    checkpoints: Sequence[str],
    val: SplitPredictions | None,
    test: SplitPredictions | None,
    contributions: Sequence[dict[str, Contribution | None] | None] | None,
    worth: Worth,
) -> list[MemberScores]:
    return [
        {
            "checkpoint": checkpoint,
            "val": _summary(None if val is None else val.members[index], val),
            "test": _summary(None if test is None else test.members[index], test),
            "kinds": dict(worth.members[index]) if worth.members else {},
            "leave_one_out": None if contributions is None else contributions[index],
        }
        for index, checkpoint in enumerate(checkpoints)
    ]


def _gains(
    rule: FittedRule,
    pooled: FloatArray | None,
    members: Sequence[MemberScores],
    validation: Subsets | None,
    test: SplitPredictions | None,
    *,
    samples: int,
    seed: int,
) -> tuple[Gain | None, Gain | None]:
    """Gains over the best member by validation, and over the mean of the members' hits and losses.

    If the ensemble has a temperature, each member gets one, fitted in the same way; otherwise an ensemble of copies
    would win against the member itself (Ashukha et al. 2020).
    """
    if test is None or pooled is None:
        return None, None
    others = list(test.members)
    if validation is not None and rule.temperature != 1:
        scales = [fit_temperature(member, validation.labels) for member in validation.stack]
        others = [tempered(member, scale) for member, scale in zip(others, scales, strict=True)]
    over = partial(paired_gain, tempered(pooled, rule.temperature), labels=test.labels, samples=samples, seed=seed)
    return None if validation is None else over([others[best_member(members)]]), over(others)


def _calibration(
    rule: FittedRule,
    whole: Candidate | None,
    pooled: FloatArray | None,
    val: SplitPredictions | None,
    test: SplitPredictions | None,
) -> Calibration:
    if whole is None or val is None:
        return {"temperature": rule.temperature, "val": None, "test": None}
    on_test = None
    if test is not None and pooled is not None:
        on_test = _before_and_after(pooled, tempered(pooled, rule.temperature), test.labels)
    on_val = _before_and_after(whole.pooled, whole.scored, val.labels)
    return {"temperature": rule.temperature, "val": on_val, "test": on_test}


def _before_and_after(before: FloatArray, after: FloatArray, labels: NDArray[np.int64]) -> dict[str, dict[str, float]]:
    return {
        name: {"nll": metrics.nll(probabilities, labels), "ece": metrics.ece(probabilities, labels)}
        for name, probabilities in (("before", before), ("after", after))
    }

"""The receipt: what each member scores, what the ensemble scores, and whether the difference is more than noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from tl_kit import metrics
from tl_kit.combining.bootstrap import paired_bootstrap, paired_interval
from tl_kit.combining.calibration import fit_temperature, tempered
from tl_kit.combining.contributions import Contribution, Subset, Subsets, leave_one_out, smallest_subset
from tl_kit.combining.diversity import disagreement
from tl_kit.combining.predictions import SplitPredictions
from tl_kit.combining.selection import Candidate, Compared
from tl_kit.metrics import image_losses

__all__ = [
    "NO_KINDS",
    "Calibration",
    "Cost",
    "Gain",
    "MemberScores",
    "Receipt",
    "SplitScores",
    "Worth",
    "best_member",
    "build_receipt",
]

FloatArray = NDArray[np.float64]
NO_KINDS: Mapping[str, str] = MappingProxyType({})


class SplitScores(TypedDict):
    """Scores as :func:`tl_kit.metrics.summary` gives them; ``test`` is ``None`` without a test split.

    ``val`` is ``None`` only for folds (:mod:`tl_kit.combining.fold_receipt`).
    """

    val: dict[str, float] | None
    test: dict[str, float] | None


class MemberScores(SplitScores):
    """One member's scores, where it lies, and what the ensemble loses without it (``None`` for a single member).

    ``kinds``: what its scores on each split are worth (:func:`tl_kit.storage.seen_images.kind_of`).
    """

    checkpoint: str
    kinds: dict[str, str]
    leave_one_out: dict[str, Contribution | None] | None


class Gain(TypedDict):
    """Test accuracy and NLL of the ensemble less those it is compared with, with 95 % intervals [lo, hi].

    A good ensemble has a positive gain in accuracy and a negative one in NLL.
    """

    accuracy: float
    ci95: list[float]
    nll: float
    nll_ci95: list[float]


class Calibration(TypedDict):
    """The temperature (1: none), and NLL and ECE before and after it; ``val`` is out of fold, ``None`` for folds."""

    temperature: float
    val: dict[str, dict[str, float]] | None
    test: dict[str, dict[str, float]] | None


class Cost(TypedDict):
    """What a prediction takes: forward passes an image, measured seconds an image, parameters, bytes of weights."""

    forward_passes: int
    seconds_per_image: float
    parameters: int
    weight_bytes: int


class Receipt(TypedDict):
    """Plain numbers, strings, lists and dicts, ready for JSON; the gains are ``None`` without a test split.

    ``kinds`` say what the ensemble's scores on each split are worth: ``val`` is ``selected on`` where it chose
    anything of the members or of the ensemble (``chosen_by_val``). Where anything was fitted, or the rule was chosen,
    its ``val`` scores are out of fold: then only what chose the members makes them too good. ``cost`` is ``None`` if
    not measured. ``derived`` says how a rule made new members, to which ``parameters`` then apply; ``members`` are
    always the given ones. What a given member is worth is then not told (``None``).
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
    """What scores are worth, by split: each member's and the ensemble's; and what validation chose of all of them."""

    members: Sequence[Mapping[str, str]] = ()
    ensemble: Mapping[str, str] = field(default_factory=dict)
    chose: Sequence[str] = ()


_UNSAID = Worth()


def build_receipt(
    checkpoints: Sequence[str],
    subsets: Subsets,
    *,
    test: SplitPredictions | None,
    samples: int,
    comparison: Sequence[Compared] = (),
    cost: Cost | None = None,
    made: FloatArray | None = None,
    worth: Worth = _UNSAID,
) -> Receipt:
    """Scores of all members and of the ensemble, its gain on test, and what each member is worth.

    Args:
        checkpoints: the members' folders, in the order of the predictions' first axis.
        subsets: the chosen rule, fitted, and the validation predictions: they alone choose the member to compare with.
        test: predictions on the test split, ``None`` if there is none.
        samples: resamples of :func:`paired_bootstrap`.
        comparison: of all rules, if the rule was chosen among them.
        cost: as measured.
        made: what the members that the rule made, if it did, predict for the test images.
        worth: what the scores are worth.

    Raises:
        ConfigError: ``samples`` is below 1.
        ValueError: the numbers of members do not agree, or values are no probabilities.
    """
    val = SplitPredictions(members=subsets.stack, labels=subsets.labels)
    for split in (val, test):
        if split is not None and (len(split.members) != len(checkpoints) or not checkpoints):
            raise ValueError(f"want at least one member, got {len(checkpoints)} names for {len(split.members)} members")
    members, whole = _members(checkpoints, subsets, val, test, worth), subsets.whole
    pooled = None if test is None else whole.fitted.pool(test.members if made is None else made)
    gain, over_mean = None, None
    if test is not None and pooled is not None:
        gain, over_mean = _gains(subsets, test, pooled, best=best_member(members), samples=samples)
    return {
        "rule": whole.rule,
        "parameters": dict(whole.fitted.parameters),
        "derived": None if whole.derived is None else dict(whole.derived.record),
        "images": {"val": len(val.labels), "test": None if test is None else len(test.labels)},
        "kinds": dict(worth.ensemble),
        "chosen_by_val": list(worth.chose),
        "members": members,
        "ensemble": {
            "val": metrics.summary(whole.estimate, val.labels),
            "test": None
            if test is None or pooled is None
            else metrics.summary(tempered(pooled, whole.fitted.temperature), test.labels),
        },
        "gain": gain,
        "gain_over_mean_member": over_mean,
        "calibration": _calibration(whole, pooled, val, test),
        "comparison": list(comparison),
        "disagreement": {
            "val": disagreement(val.members),
            "test": None if test is None else disagreement(test.members),
        },
        "smallest_subset": _smallest(subsets, test, samples=samples),
        "cost": cost,
    }


def best_member(members: Sequence[MemberScores]) -> int:
    """Index of the highest validation accuracy; ties go to the lower validation NLL, then to the earlier member."""
    scores = [member["val"] for member in members]
    if None in scores:
        raise ValueError("members without validation scores cannot be ranked")
    ranked = [(-each["accuracy"], each["nll"]) for each in scores if each is not None]
    return min(range(len(members)), key=lambda i: ranked[i])


def _members(
    checkpoints: Sequence[str],
    subsets: Subsets,
    val: SplitPredictions,
    test: SplitPredictions | None,
    worth: Worth,
) -> list[MemberScores]:
    contributions: Sequence[dict[str, Contribution | None] | None] = [None] * len(checkpoints)
    if len(checkpoints) > 1 and subsets.whole.derived is None:
        test_stack, test_labels = (None, None) if test is None else (test.members, test.labels)
        contributions = leave_one_out(subsets, test=test_stack, test_labels=test_labels)
    return [
        {
            "checkpoint": checkpoint,
            "val": metrics.summary(val.members[index], val.labels),
            "test": None if test is None else metrics.summary(test.members[index], test.labels),
            "kinds": dict(worth.members[index]) if worth.members else {},
            "leave_one_out": contribution,
        }
        for index, (checkpoint, contribution) in enumerate(zip(checkpoints, contributions, strict=True))
    ]


def _smallest(subsets: Subsets, test: SplitPredictions | None, *, samples: int) -> Subset | None:
    if len(subsets.stack) < 2 or subsets.whole.derived is not None:
        return None
    stack, labels = (None, None) if test is None else (test.members, test.labels)
    return smallest_subset(subsets, test=stack, test_labels=labels, samples=samples)


def _gains(
    subsets: Subsets, test: SplitPredictions, pooled: FloatArray, *, best: int, samples: int
) -> tuple[Gain, Gain]:
    """Over the best member by validation, and over the mean member: the mean of the members' hits and losses.

    Where the ensemble has a temperature, each member gets one for its NLL, fitted alike: otherwise it would lose to its
    own copies (Ashukha et al. 2020).
    """
    ensemble, labels = tempered(pooled, subsets.whole.fitted.temperature), test.labels
    members = list(test.members)
    if subsets.whole.fitted.temperature != 1:
        scales = [fit_temperature(member, subsets.labels) for member in subsets.stack]
        members = [tempered(member, scale) for member, scale in zip(members, scales, strict=True)]
    hits = np.stack([metrics.correct(member, labels) for member in test.members])
    losses = np.stack([image_losses(member, labels) for member in members])
    correct, loss = metrics.correct(ensemble, labels), image_losses(ensemble, labels)
    options = {"samples": samples, "seed": subsets.seed}
    return (
        _gain(paired_bootstrap(hits[best], correct, **options), paired_interval(loss - losses[best], **options)),
        _gain(
            paired_interval(correct - hits.mean(axis=0), **options),
            paired_interval(loss - losses.mean(axis=0), **options),
        ),
    )


def _gain(accuracy: tuple[float, float, float], nll: tuple[float, float, float]) -> Gain:
    return {"accuracy": accuracy[0], "ci95": list(accuracy[1:]), "nll": nll[0], "nll_ci95": list(nll[1:])}


def _calibration(
    whole: Candidate, pooled: FloatArray | None, val: SplitPredictions, test: SplitPredictions | None
) -> Calibration:
    on_test = None
    if test is not None and pooled is not None:
        on_test = _before_and_after(pooled, tempered(pooled, whole.fitted.temperature), test.labels)
    return {
        "temperature": whole.fitted.temperature,
        "val": _before_and_after(whole.pooled, whole.scored, val.labels),
        "test": on_test,
    }


def _before_and_after(before: FloatArray, after: FloatArray, labels: NDArray[np.int64]) -> dict[str, dict[str, float]]:
    return {
        name: {"nll": metrics.nll(probabilities, labels), "ece": metrics.ece(probabilities, labels)}
        for name, probabilities in (("before", before), ("after", after))
    }

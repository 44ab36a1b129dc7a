"""The ensemble rules that make new weights: soups, interpolation, and one head on all members' features.

Each rule returns new members, a :class:`FittedRule` for them, and out-of-fold predictions of the validation images. A
new rule is a function here, a line in :func:`weight_rules` and its name in ``combining.ensemble_rules.WEIGHT_RULES``;
its record lists the members as ``ingredients``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

from tl_kit.combining.average_choice import Mix, Options, Score, greedy_soup, uniform_soup, wise_ft
from tl_kit.combining.derived import Derived, Loss, choose_out_of_fold, tried
from tl_kit.combining.ensemble_rules import AUTO
from tl_kit.combining.fitted_rule import FittedRule
from tl_kit.combining.selection import Candidate, with_temperature
from tl_kit.ensembling.averaged_models import Mixtures
from tl_kit.ensembling.concatenated_head import concat
from tl_kit.ensembling.derived_members import write_member
from tl_kit.ensembling.evidence import Evidence
from tl_kit.errors import ConfigError, MemberError
from tl_kit.freezing.policies import trains_head_alone

__all__ = ["weight_rules"]

Choose = Callable[[Options, Score], Mix]


def weight_rules(evidence: Evidence, scratch: Path, *, auto: bool) -> dict[str, Callable[[], Candidate]]:
    """Each rule's name with the function that fits it. Intermediate results that several rules need are computed once.

    Under ``auto``, rules that would take too long raise ConfigError. ``scratch`` is a folder for temporary files.
    """
    mixtures = cache(partial(Mixtures, evidence))
    count = len(evidence.predictor.members)
    rules: dict[str, Callable[[], Candidate]] = {
        "soup": lambda: _mixed(evidence, mixtures(), "soup", partial(uniform_soup, count)),
        "greedy-soup": lambda: _mixed(evidence, mixtures(), "greedy-soup", partial(greedy_soup, count)),
        "wise-ft": lambda: _wise_ft(evidence, mixtures),
        "concat": lambda: concat(evidence, scratch, auto=auto),
    }
    return {name: partial(_enough_images, evidence, name, rule) for name, rule in rules.items()}


def _enough_images(evidence: Evidence, name: str, rule: Callable[[], Candidate]) -> Candidate:
    if len(evidence.labels) < 2:
        raise ConfigError(f"rule {name}: one validation image is too few to choose by; choose another --rule")
    return rule()


def _wise_ft(evidence: Evidence, mixtures: Callable[[], Mixtures]) -> Candidate:
    policies = [evidence.predictor.members[index].meta.get("policy") for index in evidence.order]
    if len(policies) != 2:
        raise MemberError(f"rule wise-ft: interpolates between two checkpoints, {len(policies)} given")
    heads = [trains_head_alone(policy) for policy in policies]
    if heads.count(True) != 1:
        raise MemberError(
            "rule wise-ft: one of the two checkpoints must come from --policy head, and the other from another; these "
            f"come from {policies[0]} and {policies[1]}"
        )
    probe = heads.index(True)
    choose = partial(wise_ft, probe, evidence.config.soups.alphas)
    return _mixed(evidence, mixtures(), "wise-ft", choose, tuned=1 - probe)


def _mixed(evidence: Evidence, mixtures: Mixtures, rule: str, choose: Choose, *, tuned: int | None = None) -> Candidate:
    """The candidate of a rule that chooses one average (it may be one member); α is the weight of ``tuned``."""
    labels, calibrate = evidence.labels, evidence.config.calibrate
    by_score = partial(choose, mixtures.options)
    chosen, pooled = choose_out_of_fold(
        by_score, mixtures.probabilities, labels, folds=evidence.folds, calibrate=calibrate
    )
    scores = tried(by_score, mixtures.probabilities, labels, calibrate=calibrate)
    fallback = None
    if chosen.member is not None:
        best = mixtures.members[chosen.member].path
        fallback = f"no average is as good on validation as {best} alone, in accuracy and NLL"
        if evidence.config.rule != AUTO:  # which then chooses another rule
            evidence.reporter.message(f"{rule}: {fallback}, which is taken")
    record = {
        "rule": rule,
        "fallback": fallback,
        **({} if tuned is None else {"alpha": chosen.weights[tuned]}),
        **_record(evidence, mixtures, chosen, scores),
    }

    def write(folder: Path) -> list[Path]:
        if chosen.member is not None:
            return [mixtures.members[chosen.member].path]
        model = mixtures.load(chosen)
        return [write_member(folder / rule, model, evidence=evidence, sources=evidence.order, record=record)]

    derived = Derived(rule=rule, record=record, write=write, fallback=fallback)
    options: dict[str, Any] = {"folds": evidence.folds, "calibrate": calibrate, "derived": derived}
    return with_temperature(FittedRule(), pooled, labels, **options)


def _record(evidence: Evidence, mixtures: Mixtures, chosen: Mix, scores: Mapping[Mix, Loss]) -> dict[str, Any]:
    """The ingredients with their weights, and every average that was tried; weights are in the order given."""

    def weights(mix: Mix) -> list[float]:
        return [mix.weights[evidence.order.index(number)] for number in range(len(evidence.order))]

    def statistics(mix: Mix) -> str | None:
        if mix.member is not None or not mixtures.has_statistics:
            return None
        return "re-estimated" if mix.reestimated else "as averaged"

    return {
        "ingredients": [
            {**ingredient, "weight": weight}
            for ingredient, weight in zip(evidence.ingredients, weights(chosen), strict=True)
        ],
        "batchnorm": statistics(chosen),
        "batchnorm_images": mixtures.images if chosen.reestimated else None,
        "batchnorm_augment": mixtures.augment_name if chosen.reestimated else None,
        "averages_scored": mixtures.scored,
        "tried": [
            {
                "weights": weights(mix),
                "batchnorm": statistics(mix),
                "accuracy": 1 - loss.error,
                "nll": loss.nll,
                "chosen": mix == chosen,
            }
            for mix, loss in scores.items()
        ],
    }

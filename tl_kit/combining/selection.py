"""Selection of an ensemble rule: every rule is scored on validation images to which it was not fitted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from tl_kit import metrics
from tl_kit.combining.bootstrap import standard_error, worse_by_more_than_noise
from tl_kit.combining.calibration import fit_temperature, tempered
from tl_kit.combining.canonical_order import stratified_folds
from tl_kit.combining.derived import Derived
from tl_kit.combining.ensemble_rules import AUTO, ONE_PASS, RULES, SIMPLEST_FIRST, check_rule
from tl_kit.combining.fitted_rule import FittedRule, fit_rule
from tl_kit.config import RuleFitConfig
from tl_kit.errors import ConfigError, MemberError
from tl_kit.metrics import image_losses

__all__ = ["Candidate", "Compared", "choose_rule", "fit_candidate", "with_temperature"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

_NO_OTHERS: Mapping[str, Callable[[], Candidate]] = MappingProxyType({})


@dataclass(frozen=True, eq=False, kw_only=True)
class Candidate:
    """A rule fitted to all validation images, and its out-of-fold predictions of them, (n, k).

    ``pooled`` is before the temperature, ``scored`` after it; they are equal if the temperature is 1. With ``derived``,
    ``fitted`` applies to the new members. ``crossed`` exists if the rule was chosen among several: like ``scored``, but
    each fold is predicted by the rule that the other folds would have chosen.
    """

    fitted: FittedRule
    pooled: FloatArray
    scored: FloatArray
    derived: Derived | None = None
    crossed: FloatArray | None = None

    @property
    def estimate(self) -> FloatArray:
        """Predictions (n, k) in which each image's fold neither fitted nor chose the rule."""
        return self.scored if self.crossed is None else self.crossed

    @property
    def rule(self) -> str:
        """The name of the rule on the command line."""
        return self.fitted.rule if self.derived is None else self.derived.rule


class Compared(TypedDict):
    """One rule's line in the comparison: accuracy and NLL out of fold, and the reason if the rule is ruled out.

    ``nll_over_mean`` is its NLL minus that of ``mean``, with the paired standard error over images.
    """

    rule: str
    accuracy: float | None
    nll: float | None
    nll_over_mean: float | None
    standard_error: float | None
    temperature: float | None
    chosen: bool
    refused: str | None


def fit_candidate(
    name: str, stack: FloatArray, labels: IntArray, *, config: RuleFitConfig, calibrate: bool, seed: int
) -> Candidate:
    """Fit a rule and its temperature to validation predictions (m, n, k), and predict these images out of fold.

    A rule with parameters is fitted to all images for use, and for its score once per stratified fold to the images
    outside the fold. The temperature is fitted to these out-of-fold predictions (for a rule without parameters, to its
    predictions), and is itself scored out of fold. If it does not lower the NLL, it is 1.

    Raises:
        ConfigError: there is no such rule, or there are too few images for it.
    """
    fitted = fit_rule(name, stack, labels, config=config, seed=seed)
    folds = stratified_folds(labels, config.folds, seed=seed)
    if not fitted.parameters:
        pooled = fitted.pool(stack)
    elif len(labels) < 2:
        raise ConfigError(f"rule {name}: one validation image is too few to fit it; choose another --rule")
    else:
        pooled = np.empty(stack.shape[1:])
        for fold in np.unique(folds):
            out = folds == fold
            part = fit_rule(name, stack[:, ~out], labels[~out], config=config, seed=seed)
            pooled[out] = part.pool(stack[:, out])
    return with_temperature(fitted, pooled, labels, folds=folds, calibrate=calibrate)


def with_temperature(
    fitted: FittedRule,
    pooled: FloatArray,
    labels: IntArray,
    *,
    folds: IntArray,
    calibrate: bool,
    derived: Derived | None = None,
) -> Candidate:
    """A rule with a temperature fitted to its out-of-fold predictions (n, k), if that lowers the out-of-fold NLL."""
    plain = Candidate(fitted=fitted, pooled=pooled, scored=pooled, derived=derived)
    if not calibrate or len(labels) < 2:
        return plain
    scored = np.empty_like(pooled)
    for fold in np.unique(folds):
        out = folds == fold
        scored[out] = tempered(pooled[out], fit_temperature(pooled[~out], labels[~out]))
    if image_losses(scored, labels).mean() >= image_losses(pooled, labels).mean():
        return plain
    return replace(plain, fitted=replace(fitted, temperature=fit_temperature(pooled, labels)), scored=scored)


def choose_rule(
    name: str,
    stack: FloatArray,
    labels: IntArray,
    *,
    config: RuleFitConfig,
    calibrate: bool,
    seed: int,
    others: Mapping[str, Callable[[], Candidate]] = _NO_OTHERS,
) -> tuple[Candidate, list[Compared]]:
    """The fitted rule ``name``; for ``auto``, the rule that validation supports, and the comparison of all rules.

    The candidates are ``mean``; each rule whose out-of-fold NLL is lower than that of ``mean`` by more than the paired
    standard error of the difference; and each rule that makes one model of all members, unless its NLL is higher by
    more than that. The simplest candidate, in the order of ``SIMPLEST_FIRST``, within one standard error of the lowest
    NLL is chosen (the one-standard-error rule of Breiman et al. 1984, paired).

    Args:
        name: a rule, or ``auto``.
        stack: the members' probabilities of the validation images, (m, n, k).
        labels: (n,).
        config: settings of the fits.
        calibrate: whether a temperature may follow.
        seed: draws the folds.
        others: rules that need more than the predictions, each with the function that fits it.

    Raises:
        ConfigError: there is no such rule, or there are too few images for it.
        MemberError: the members do not fit the rule.
    """
    check_rule(name, known=(*RULES, *others, AUTO))

    def fit(rule: str) -> Candidate:
        if rule in others:
            return others[rule]()
        return fit_candidate(rule, stack, labels, config=config, calibrate=calibrate, seed=seed)

    if name != AUTO:
        return fit(name), []
    found: dict[str, Candidate | str] = {}
    for rule in (rule for rule in SIMPLEST_FIRST if rule in RULES or rule in others):
        try:
            _check_size(rule, stack, config)
            candidate = fit(rule)
            fallback = None if candidate.derived is None else candidate.derived.fallback
            found[rule] = candidate if fallback is None else fallback
        except (ConfigError, MemberError) as error:
            found[rule] = str(error).removeprefix(f"rule {rule}: ").removesuffix("; choose another --rule")
    fitted = {rule: candidate for rule, candidate in found.items() if isinstance(candidate, Candidate)}
    losses = {rule: image_losses(candidate.scored, labels) for rule, candidate in fitted.items()}
    chosen = _simplest(losses)
    folds = stratified_folds(labels, config.folds, seed=seed)
    best = replace(fitted[chosen], crossed=_crossed(fitted, losses, folds))
    return best, [_line(rule, found[rule], labels, losses, chosen=chosen) for rule in found]


def _crossed(fitted: Mapping[str, Candidate], losses: Mapping[str, FloatArray], folds: IntArray) -> FloatArray:
    """Predictions (n, k) of each fold by the rule chosen without it, since the best of several rules looks too good."""
    found = np.empty_like(fitted["mean"].scored)
    for fold in np.unique(folds):
        out = folds == fold
        others = {rule: loss[~out] if (~out).any() else loss for rule, loss in losses.items()}
        found[out] = fitted[_simplest(others)].scored[out]
    return found


def _simplest(losses: Mapping[str, FloatArray]) -> str:
    mean = losses["mean"]
    rules: Sequence[str] = [
        rule
        for rule, loss in losses.items()
        if rule == "mean"
        or worse_by_more_than_noise(mean - loss)
        or (rule in ONE_PASS and not worse_by_more_than_noise(loss - mean))
    ]
    best = min(rules, key=lambda rule: losses[rule].mean())
    return next(rule for rule in rules if rule == best or not worse_by_more_than_noise(losses[rule] - losses[best]))


def _check_size(rule: str, stack: FloatArray, config: RuleFitConfig) -> None:
    members, _, classes = stack.shape
    if rule == "stack" and members * classes**2 > config.stack_parameters:
        raise ConfigError(f"would have {members * classes**2:,} parameters")


def _line(
    rule: str, found: Candidate | str, labels: IntArray, losses: dict[str, FloatArray], *, chosen: str
) -> Compared:
    line: Compared = {
        "rule": rule,
        "accuracy": None,
        "nll": None,
        "nll_over_mean": None,
        "standard_error": None,
        "temperature": None,
        "chosen": rule == chosen,
        "refused": found if isinstance(found, str) else None,
    }
    if isinstance(found, Candidate):
        differences = losses[rule] - losses["mean"]
        line["accuracy"] = metrics.accuracy(found.scored, labels)
        line["nll"] = float(losses[rule].mean())
        line["nll_over_mean"] = float(differences.mean())
        line["standard_error"] = standard_error(differences) if differences.size > 1 else None
        line["temperature"] = found.fitted.temperature
    return line

"""``ensemble``: combines several checkpoints into one folder that predicts, with a receipt of the gain."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tl_kit.combining.class_order import align_classes
from tl_kit.combining.contributions import Subsets
from tl_kit.combining.ensemble_rules import AUTO, RULES, WEIGHT_RULES, check_rule
from tl_kit.combining.fitted_rule import FittedRule
from tl_kit.combining.receipt import Cost, Receipt, Worth, build_receipt
from tl_kit.combining.selection import Candidate, Compared, choose_rule
from tl_kit.config import CropConfig, EnsembleConfig
from tl_kit.data.manifest import Manifest, Sample
from tl_kit.data.patterns import expand
from tl_kit.display import figure, marked
from tl_kit.ensembling.ensemble_tracking import track_ensemble
from tl_kit.ensembling.evidence import Evidence
from tl_kit.ensembling.fold_ensembles import are_folds, score_folds
from tl_kit.ensembling.output import check_out, write_output
from tl_kit.ensembling.scored_images import scoring_images, tell_copies
from tl_kit.ensembling.weight_rules import weight_rules
from tl_kit.errors import ConfigError, DataError, MemberError
from tl_kit.html_tables import html_block, html_lines, html_table
from tl_kit.images.crops import check_crops
from tl_kit.inference.labelled import Predicted, predict_labelled
from tl_kit.inference.predictor import Predictor, check_passes, load, load_members
from tl_kit.machine.ambient import undisturbed
from tl_kit.plain_values import takes_plain_values
from tl_kit.reporting import SILENT, Reporter
from tl_kit.reports.sentences import findings, notes, verdict
from tl_kit.storage.checkpoint import WEIGHTS, Checkpoint, digest_prefix, is_checkpoint, load_checkpoint
from tl_kit.storage.ensemble_folder import PICTURE, is_ensemble
from tl_kit.storage.fit_folder import best_of
from tl_kit.storage.seen_images import NO_USES, Uses, kinds_of, uses_of
from tl_kit.tracking.openings import check_trackers

__all__ = ["EnsembleResult", "ensemble"]

_SHOWN = ("accuracy", "nll", "ece")


@dataclass(frozen=True)
class EnsembleResult:
    """The ensemble's folder, its receipt, and the crops with which the images were scored."""

    checkpoint: str
    receipt: Receipt
    crops: CropConfig
    mc_dropout: int = 0

    @property
    def picture(self) -> str:
        """The receipt's picture, a PNG file in the ensemble's folder; it does not exist without scores."""
        return str(Path(self.checkpoint) / PICTURE)

    @property
    def findings(self) -> list[str]:
        """The receipt's findings besides the gain over the best member, a sentence each."""
        return findings(self.receipt)

    @property
    def notes(self) -> list[str]:
        """Notes, one line each: scores that are too good as estimates, and how to get an honest one."""
        return notes(self.receipt)

    def _repr_html_(self) -> str:
        """The receipt, for a notebook: scores of members and ensemble, the gain, and the findings."""
        receipt = self.receipt
        scores = {"val": receipt["ensemble"]["val"], "test": receipt["ensemble"]["test"]}
        splits = [split for split, found in scores.items() if found is not None]
        kinds = [*(member["kinds"] for member in receipt["members"]), receipt["kinds"]]
        header = ["", *(f"{marked(split, kinds)} {name}" for split in splits for name in _SHOWN)]
        together: list[tuple[str, Any]] = [(member["checkpoint"], member) for member in receipt["members"]]
        together.append((f"ensemble ({receipt['rule']})", receipt["ensemble"]))
        rows = []
        for name, found in together:
            cells = [figure(score, found[split][score]) if found[split] else "" for split in splits for score in _SHOWN]
            rows.append([name, *cells])
        table = html_table(header, rows, align="l" + "r" * (len(header) - 1), strong=len(rows) - 1)
        lines = [*self.notes, verdict(receipt), *self.findings, f"checkpoint: {self.checkpoint}"]
        return html_block(f"ensemble of {len(receipt['members'])}", table, html_lines(lines))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {"checkpoint": self.checkpoint, **asdict(self.crops), "mc_dropout": self.mc_dropout, **self.receipt}


@undisturbed()
@takes_plain_values
def ensemble(config: EnsembleConfig, *, reporter: Reporter = SILENT) -> EnsembleResult:
    """Combine finished checkpoints and score them on the validation and test images of their data.

    The ensemble predicts with the crops and the dropout of ``config``, not with those of an ensemble among its members.
    Raises MemberError if the members' class names differ, or if one was trained on many of the images to score on;
    ConfigError for an unknown rule, too few validation images, or dropout in a member that has none. The rule, its
    parameters and the temperature depend on the validation images; test images are predicted once, after that. For the
    folds of a cross-validation, which leave no validation images, see :func:`score_folds`.
    """
    _check(config)
    members = _load(config.checkpoints, reporter)
    classes, _ = align_classes([m.classes for m in members], [str(m.path) for m in members])
    predictor = _predictor(config, members, classes=classes, rule=FittedRule())
    if are_folds(members):
        folds = score_folds(config, predictor, cost=_cost, reporter=reporter)
        return _made(config, predictor, FittedRule(config.rule), NO_USES, receipt=folds, reporter=reporter)
    manifest, splits = scoring_images(config, predictor, reporter)
    val = _predict(predictor, manifest, splits["val"], reporter)
    evidence = Evidence(
        predictor=predictor,
        manifest=manifest,
        val=val.samples,
        stack=val.predictions.members,
        labels=val.predictions.labels,
        config=config,
        reporter=reporter,
    )
    tell_copies(evidence.predictor, list(evidence.stack), "network", reporter)
    with TemporaryDirectory(prefix="tlkit-") as scratch:
        whole, comparison = _choose(evidence, Path(scratch))
        receipt, final = _finish(evidence, whole, comparison, splits, val.seconds, Path(scratch))
        return _made(config, final, whole.fitted, _fitted_on(evidence), receipt=receipt, reporter=reporter)


def _check(config: EnsembleConfig) -> None:
    """Check the options before anything is read."""
    check_rule(config.rule)
    check_out(config.out)
    check_crops(config.crops)
    check_passes(config.mc_dropout)
    check_trackers(config.tracking)
    if config.mc_dropout and config.rule in WEIGHT_RULES:
        raise ConfigError(
            f"--rule {config.rule}: makes new weights, which exclude dropout at test time; leave --mc-dropout out"
        )


def _made(
    config: EnsembleConfig,
    predictor: Predictor,
    rule: FittedRule,
    fitted_on: Uses,
    *,
    receipt: Receipt,
    reporter: Reporter,
) -> EnsembleResult:
    """Report the findings and write the folder."""
    reporter.message(verdict(receipt))
    folder = write_output(config, predictor, rule=rule, fitted_on=fitted_on, receipt=receipt)
    track_ensemble(config, receipt, folder, reporter)
    return EnsembleResult(str(folder), receipt, config.crops, config.mc_dropout)


def _predictor(
    config: EnsembleConfig, members: Sequence[Checkpoint], *, classes: Sequence[str], rule: FittedRule
) -> Predictor:
    return load_members(
        members[0].path,
        members,
        classes=classes,
        rule=rule,
        crops=config.crops,
        decode=config.decode,
        mc_dropout=config.mc_dropout,
        runtime=config.runtime,
    )


def _choose(evidence: Evidence, scratch: Path) -> tuple[Candidate, list[Compared]]:
    config = evidence.config
    return choose_rule(
        config.rule,
        evidence.stack,
        evidence.labels,
        config=config.fit,
        calibrate=config.calibrate,
        seed=config.seed,
        others={} if config.mc_dropout else weight_rules(evidence, scratch, auto=config.rule == AUTO),
    )


def _finish(
    evidence: Evidence,
    whole: Candidate,
    comparison: Sequence[Compared],
    splits: Mapping[str, Sequence[Sample]],
    seconds: float,
    scratch: Path,
) -> tuple[Receipt, Predictor]:
    """The receipt, and the predictor of the ensemble, whose members are the given ones or those that the rule made."""
    config, final = evidence.config, evidence.predictor
    manifest, reporter = evidence.manifest, evidence.reporter
    test = _predict(final, manifest, splits["test"], reporter) if splits["test"] else None
    made = None
    if whole.derived is not None:
        members = [load_checkpoint(path, mapped=True) for path in whole.derived.write(scratch / "members")]
        final = _predictor(config, members, classes=final.classes, rule=whole.fitted)
        made = _predict(final, manifest, splits["test"] or splits["val"], reporter)
        seconds = made.seconds
    receipt = build_receipt(
        [str(member.path) for member in evidence.predictor.members],
        whole.fitted,
        validation=Subsets(
            whole=whole, stack=evidence.stack, labels=evidence.labels, config=config.fit, seed=config.seed
        ),
        test=None if test is None else test.predictions,
        samples=config.bootstrap,
        seed=config.seed,
        comparison=comparison,
        cost=_cost(final, seconds),
        made=None if test is None or made is None else made.predictions.members,
        worth=_worth(evidence, [] if test is None else test.samples),
    )
    return receipt, final


def _fitted_on(evidence: Evidence) -> Uses:
    """The validation images, if they chose the rule, its parameters or its temperature."""
    rule, labels = evidence.config.rule, evidence.labels
    fitted = rule == AUTO or rule in WEIGHT_RULES or RULES[rule].fit is not None
    chose = [*(["rule"] if fitted else []), *(["temperature"] if evidence.config.calibrate and len(labels) > 1 else [])]
    if not chose:
        return NO_USES
    return Uses(selected=frozenset(map(digest_prefix, evidence.val)), chose=tuple(chose))


def _worth(evidence: Evidence, test: Sequence[Sample]) -> Worth:
    """Kinds of the members' and the ensemble's scores, by split."""
    splits, predictor = {"val": evidence.val, "test": test}, evidence.predictor
    uses = predictor.uses | _fitted_on(evidence)
    return Worth(
        members=[kinds_of(splits, uses_of(member)) for member in predictor.members],
        ensemble=kinds_of(splits, uses),
        chose=uses.chose,
    )


def _load(paths: Sequence[Path], reporter: Reporter) -> list[Checkpoint]:
    """Load the members in the order given; an ensemble among them is replaced by its members, without its rule."""
    members: list[Checkpoint] = []
    for path in _folders(paths, reporter):
        if not is_ensemble(path):
            members.append(load_checkpoint(path, mapped=True))
            continue
        inner = load(path, mc_dropout=0)
        members.extend(inner.members)
        if inner.rule != FittedRule():
            reporter.message(
                f"{path}: its members take part one by one; its own rule ({inner.rule.rule}, temperature "
                f"{inner.rule.temperature:.2f}) is not used"
            )
    if len(members) < 2:
        raise MemberError(f"an ensemble needs at least two checkpoints, {len(members)} given")
    return members


def _folders(paths: Sequence[Path], reporter: Reporter) -> Iterator[Path]:
    """The folders given; a pattern that no shell has expanded is replaced by the checkpoints that match it."""
    for given in paths:
        matches = expand(given)
        if matches == [Path(given)]:
            yield best_of(Path(given))
            continue
        ensembles = {match for match in matches if is_ensemble(match)}
        found = [m for m in matches if (m in ensembles or is_checkpoint(m)) and ensembles.isdisjoint(m.parents)]
        if not found:
            raise MemberError(f"{given}: none of the {len(matches)} files and folders that match holds a checkpoint")
        if others := [match for match in matches if match not in found and ensembles.isdisjoint(match.parents)]:
            more = f" and {len(others) - 1:,} more" if others[1:] else ""
            reporter.message(f"{given}: left out, since they hold no checkpoint: {others[0]}{more}")
        yield from found


def _predict(predictor: Predictor, manifest: Manifest, samples: Sequence[Sample], reporter: Reporter) -> Predicted:
    """Predict one image or more. Raises DataError if none can be decoded."""
    found = predict_labelled(predictor, manifest, samples, data=manifest.root, reporter=reporter)
    if found is None:
        raise DataError(f"{manifest.root}: none of the {len(samples)} images of {samples[0].split} can be decoded")
    return found


def _cost(predictor: Predictor, seconds: float) -> Cost:
    """The cost of predicting one image; ``seconds`` is the time measured here, decoding included."""
    members, dropout = predictor.members, [scorer.dropout for scorer in predictor.scorers]
    passes = sum(1 if each is None else each.forward_passes for each in dropout)
    return {
        "forward_passes": passes * predictor.crops.views,
        "seconds_per_image": seconds,
        "parameters": sum(parameter.numel() for member in members for parameter in member.model.parameters()),
        "weight_bytes": sum((member.path / WEIGHTS).stat().st_size for member in members),
    }

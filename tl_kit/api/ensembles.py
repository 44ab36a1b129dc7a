"""``ensemble``: from several checkpoints to one folder that predicts, with the receipt of what was gained."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tl_kit.api.evaluation import labels_for, seen, split_config
from tl_kit.api.evidence import Evidence
from tl_kit.api.fold_ensembles import are_folds, score_folds
from tl_kit.api.left_out import scan_images, tell_left_out
from tl_kit.api.predictor import Predictor, check_passes, load, load_members
from tl_kit.api.receipt_picture import draw_receipt
from tl_kit.api.weight_rules import weight_rules
from tl_kit.config import CropConfig, EnsembleConfig
from tl_kit.data.crops import check_crops
from tl_kit.data.manifest import Exclusion, Manifest, Sample
from tl_kit.ensembling.alignment import align_classes
from tl_kit.ensembling.contributions import Subsets
from tl_kit.ensembling.fitted import FittedRule
from tl_kit.ensembling.folder import PICTURE, is_ensemble, write_ensemble
from tl_kit.ensembling.receipt import Cost, Receipt, SplitPredictions, build_receipt
from tl_kit.ensembling.rules import AUTO, WEIGHT_RULES, check_fitting, check_rule
from tl_kit.ensembling.selection import Candidate, Compared, choose_rule
from tl_kit.ensembling.verdict import findings, verdict
from tl_kit.errors import CheckpointError, ConfigError, DataError, MemberError
from tl_kit.reporting import SILENT, Reporter
from tl_kit.training.checkpoint import WEIGHTS, Checkpoint, load_checkpoint
from tl_kit.training.files import check_name, new_numbered_folder

__all__ = ["EnsembleResult", "ensemble"]


@dataclass(frozen=True)
class EnsembleResult:
    """The ensemble's folder, its receipt, and the crops with which the images were scored."""

    checkpoint: str
    receipt: Receipt
    crops: CropConfig
    mc_dropout: int = 0

    @property
    def picture(self) -> str:
        """The receipt as a picture, a PNG file in the ensemble's folder; there is none without scores."""
        return str(Path(self.checkpoint) / PICTURE)

    @property
    def findings(self) -> list[str]:
        """What the receipt says besides the gain over the best member, a sentence each."""
        return findings(self.receipt)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {"checkpoint": self.checkpoint, **asdict(self.crops), "mc_dropout": self.mc_dropout, **self.receipt}


def ensemble(config: EnsembleConfig, *, reporter: Reporter = SILENT) -> EnsembleResult:
    """Combine finished checkpoints and score them on the validation and test images of their data.

    The ensemble predicts with the crops and the dropout of ``config``, whatever an ensemble among its members was made
    with. Raises MemberError when the members' class names differ, or one was trained on many of the images to score on;
    ConfigError for a rule that is none, or has too few validation images, and for dropout in a member without any. The
    rule, its parameters and the temperature follow from the validation images; test images are predicted once, after
    that. The folds of a cross-validation leave no validation images: for them see :func:`score_folds`.
    """
    check_rule(config.rule)
    check_fitting(config.fit, config.soups)
    _check_out(config.out)
    check_crops(config.crops)
    check_passes(config.mc_dropout)
    if config.mc_dropout and config.rule in WEIGHT_RULES:
        raise ConfigError(f"--rule {config.rule}: makes new weights, without dropout; leave --mc-dropout out")
    members = _load(config.checkpoints, reporter)
    classes, _ = align_classes([m.classes for m in members], [str(m.path) for m in members])
    predictor = load_members(
        members[0].path,
        members,
        classes=classes,
        rule=FittedRule(),
        crops=config.crops,
        decode=config.decode,
        mc_dropout=config.mc_dropout,
        runtime=config.runtime,
    )
    if are_folds(members):
        folds = score_folds(config, predictor, cost=_cost, reporter=reporter)
        reporter.message(verdict(folds))
        folder = _write(config, members, classes, FittedRule(config.rule), folds)
        return EnsembleResult(str(folder), folds, config.crops, config.mc_dropout)
    data = config.data or _common_data(members)
    made = split_config(predictor)
    manifest = scan_images(data, made, decode=config.decode, strict=config.strict, reporter=reporter)
    reporter.message(f"{len(members)} members, scored on {data}")
    splits = {split: _clean(predictor, manifest.split(split), split, reporter) for split in ("val", "test")}
    val = _predict(predictor, manifest, splits["val"], reporter)
    if val is None:
        raise DataError(f"{data}: has no validation images, which choosing the best member needs")
    evidence = Evidence(
        predictor=predictor,
        manifest=manifest,
        val=val.samples,
        stack=val.predictions.members,
        labels=val.predictions.labels,
        config=config,
        reporter=reporter,
    )
    with TemporaryDirectory(prefix="tlkit-") as scratch:
        whole, comparison = _choose(evidence, Path(scratch))
        receipt, final = _finish(evidence, whole, comparison, splits, val.seconds, Path(scratch))
        reporter.message(verdict(receipt))
        folder = _write(config, final.members, classes, whole.fitted, receipt)
    return EnsembleResult(str(folder), receipt, config.crops, config.mc_dropout)


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
    """The receipt, and the predictor whose members the ensemble has: the given ones, or those that the rule made."""
    config, predictor = evidence.config, evidence.predictor
    test = _predict(predictor, evidence.manifest, splits["test"], evidence.reporter)
    final, made = predictor, None
    if whole.derived is not None:
        made_members = [load_checkpoint(path, mapped=True) for path in whole.derived.write(scratch / "members")]
        final = load_members(
            made_members[0].path,
            made_members,
            classes=predictor.classes,
            rule=whole.fitted,
            crops=config.crops,
            decode=config.decode,
            runtime=config.runtime,
        )
        made = _predict(final, evidence.manifest, splits["test"] or splits["val"], evidence.reporter)
        seconds = seconds if made is None else made.seconds
    receipt = build_receipt(
        [str(member.path) for member in predictor.members],
        Subsets(whole=whole, stack=evidence.stack, labels=evidence.labels, config=config.fit, seed=config.seed),
        test=None if test is None else test.predictions,
        samples=config.bootstrap,
        comparison=comparison,
        cost=_cost(final, seconds),
        made=None if test is None or made is None else made.predictions.members,
    )
    return receipt, final


def _load(paths: Sequence[Path], reporter: Reporter) -> list[Checkpoint]:
    """Members in the order given; an ensemble among them stands for its own members, without its rule."""
    members: list[Checkpoint] = []
    for path in map(Path, paths):
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


def _common_data(members: Sequence[Checkpoint]) -> Path:
    """The data set that every member was trained on, by content; refused if they differ."""
    contents = {member.meta.get("data", {}).get("content") for member in members}
    root = members[0].meta.get("data", {}).get("root")
    if len(contents) != 1 or not root:
        raise MemberError(
            "the members were trained on different images or splits: name the folder to score on with --data"
        )
    if not Path(root).exists():
        raise DataError(f"{root}: the members' data is no longer there; name its folder with --data")
    return Path(root)


@dataclass(frozen=True)
class _Predicted:
    """Those of a split's images that can be decoded, what members predict for them, and the seconds an image took."""

    samples: list[Sample]
    predictions: SplitPredictions
    seconds: float


def _predict(
    predictor: Predictor, manifest: Manifest, samples: Sequence[Sample], reporter: Reporter
) -> _Predicted | None:
    if not samples:
        return None
    started = time.perf_counter()
    labels = labels_for(samples, manifest, predictor, manifest.root)
    stack, failures = predictor.member_probabilities([sample.path for sample in samples], reporter=reporter)
    broken = [Exclusion(samples[index].path, reason) for index, reason in failures.items()]
    tell_left_out(broken, manifest.root, reporter)
    kept = [index for index in range(len(samples)) if index not in failures]
    if not kept:
        raise DataError(f"{manifest.root}: none of the {len(samples)} images of {samples[0].split} can be decoded")
    predictions = SplitPredictions(members=stack[:, kept], labels=labels[kept])
    return _Predicted([samples[index] for index in kept], predictions, (time.perf_counter() - started) / len(kept))


def _cost(predictor: Predictor, seconds: float) -> Cost:
    """Of one image; ``seconds`` are those that it took here, decoding included."""
    members, dropout = predictor.members, [scorer.dropout for scorer in predictor.scorers]
    passes = sum(1 if each is None else each.forward_passes for each in dropout)
    return {
        "forward_passes": passes * predictor.crops.views,
        "seconds_per_image": seconds,
        "parameters": sum(parameter.numel() for member in members for parameter in member.model.parameters()),
        "weight_bytes": sum((member.path / WEIGHTS).stat().st_size for member in members),
    }


def _clean(predictor: Predictor, samples: Sequence[Sample], split: str, reporter: Reporter) -> list[Sample]:
    """The images that may score the members: none that one was trained on and, for test, none that one was selected by.

    A few copies across given splits are left out and counted. Where a tenth or more were seen, the members do not
    share their splits, and are refused.
    """
    splits = ("train",) if split == "val" else ("train", "val")
    kept = list(samples)
    for member in predictor.members:
        known = set(seen(samples, [member], *splits))
        if len(known) * 10 >= max(len(samples), 1):
            raise MemberError(
                f"{member.path}: was trained or selected on {len(known)} of the {len(samples)} {split} images, so its "
                "scores would be no evidence; train all members on the same splits"
            )
        kept = [sample for sample in kept if sample not in known]
    if len(kept) < len(samples):
        count = len(samples) - len(kept)
        reporter.message(f"left out of {split}: {count} images that a member was trained or selected on")
    return kept


def _check_out(out: Path | None) -> None:
    """Before any scoring: a folder with something in it is not written into."""
    if out is not None:
        check_name(Path(out))
    if out is not None and Path(out).exists() and (not Path(out).is_dir() or any(Path(out).iterdir())):
        raise CheckpointError(f"--out {out}: is not empty; choose another folder or remove it")


def _write(
    config: EnsembleConfig,
    members: Sequence[Checkpoint],
    classes: Sequence[str],
    rule: FittedRule,
    receipt: Receipt,
) -> Path:
    folder = Path(config.out) if config.out is not None else new_numbered_folder(Path(config.default_out), "ensemble")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        paths = [member.path for member in members]
        if receipt["ensemble"]["val"] or receipt["ensemble"]["test"]:
            draw_receipt(receipt, folder / PICTURE)
        write_ensemble(
            folder,
            paths,
            classes=classes,
            rule=rule,
            crops=config.crops,
            mc_dropout=config.mc_dropout,
            receipt=dict(receipt),
        )
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise CheckpointError(f"{folder}: cannot be written ({error.strerror})") from error
    return folder

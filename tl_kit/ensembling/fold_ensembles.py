"""Ensembles of the folds of one cross-validation: every image was seen by all members but one."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from tl_kit.combining.fold_receipt import FoldReceipt, HeldOut, build_fold_receipt, check_fold_rule
from tl_kit.combining.receipt import Cost
from tl_kit.config import EnsembleConfig
from tl_kit.data.exclusions import scan_images
from tl_kit.data.folds import pool_of
from tl_kit.data.manifest import Manifest
from tl_kit.ensembling.scored_images import tell_copies, tell_seen
from tl_kit.errors import DataError
from tl_kit.file_kinds import may_be_there
from tl_kit.inference.labelled import Predicted, predict_labelled
from tl_kit.inference.made_splits import split_config
from tl_kit.inference.predictor import Predictor
from tl_kit.reporting import Reporter
from tl_kit.storage.checkpoint import Checkpoint, digest_prefix, map_weights
from tl_kit.storage.seen_images import kinds_of, uses_of

__all__ = ["are_folds", "score_folds"]


def are_folds(members: Sequence[Checkpoint]) -> bool:
    """True if the members are folds: each image that some member has seen is unknown to the same number of members.

    This holds for all folds of one cross-validation, and of several with the same folds. Seen images are those that a
    member trained on or selected with. Members with the same split are not folds, nor is a member that has seen all
    images.
    """
    own = [uses_of(member).known for member in members]
    known = Counter(digest for digests in own for digest in digests)
    roots = {member.meta.get("data", {}).get("root") for member in members}
    alike = len(roots) == 1 and roots != {None} and len(set(known.values())) == 1
    return alike and all(len(digests) < len(known) for digests in own)


def score_folds(
    config: EnsembleConfig, predictor: Predictor, *, cost: Callable[[Predictor, float], Cost], reporter: Reporter
) -> FoldReceipt:
    """The receipt of an ensemble of all folds, under a rule without parameters.

    Each member is scored on the images that it has not seen. The ensemble is scored on a test split that was set aside
    or, with ``config.data``, on images that no member has seen; without such images it has no scores. Raises
    ConfigError for a rule that is fitted, and DataError if the members' data is gone and no other data is named.
    """
    check_fold_rule(config.rule)
    members = predictor.members
    root = Path(members[0].meta["data"]["root"])
    if config.data is None and not may_be_there(root):
        raise DataError(f"{root}: the members' data is no longer there; name a folder of other images with --data")
    data = Path(config.data or root)
    reporter.message(f"{len(members)} folds: each member is scored out of fold, the ensemble on separate images")
    started, images = time.perf_counter(), 0
    held_out = manifest = None
    if may_be_there(root):
        manifest = _scan(config, predictor, root, reporter)
        held_out = _held_out(predictor, manifest, root, reporter)
        images = sum(len(labels) for _, labels in held_out)
    seconds = (time.perf_counter() - started) * len(members) / max(images, 1)
    if manifest is None or data != root:
        manifest = _scan(config, predictor, data, reporter)
    apart = _apart(predictor, manifest, data, reporter)
    if apart is None:
        reporter.message("the ensemble's scores: none, every image was seen by a member; name other images with --data")
    return build_fold_receipt(
        [str(member.path) for member in members],
        config.rule,
        held_out=held_out,
        test=None if apart is None else apart.predictions,
        kinds={} if apart is None else kinds_of({"test": apart.samples}, predictor.uses),
        samples=config.bootstrap,
        seed=config.seed,
        cost=cost(predictor, seconds) if images else None,
    )


def _scan(config: EnsembleConfig, predictor: Predictor, data: Path, reporter: Reporter) -> Manifest:
    made = split_config(predictor, data, image_column=config.image_column, label_column=config.label_column)
    return scan_images(data, made, decode=config.decode, strict=config.strict, reporter=reporter, trainable=False)


def _held_out(predictor: Predictor, manifest: Manifest, root: Path, reporter: Reporter) -> list[HeldOut]:
    """Each member's predictions of the images that it has not seen and other members have."""
    known = [sample for sample in pool_of(manifest) if digest_prefix(sample) in predictor.uses.known]
    found = []
    for index, member in enumerate(predictor.members):
        own = uses_of(member).known
        alone = replace(
            predictor, members=(member,), columns=(predictor.columns[index],), scorers=(predictor.scorers[index],)
        )
        others = [sample for sample in known if digest_prefix(sample) not in own]
        predicted = predict_labelled(alone, manifest, others, data=root, reporter=reporter)
        if predicted is None:
            raise DataError(f"{root}: holds no image that {member.path} has not seen; it has changed since")
        found.append((predicted.predictions.members[0], predicted.predictions.labels))
        map_weights(member)
    tell_copies(predictor, [probabilities for probabilities, _ in found], "fold", reporter)
    return found


def _apart(predictor: Predictor, manifest: Manifest, data: Path, reporter: Reporter) -> Predicted | None:
    """All members' predictions of the given test split, or of all images, without those that a member has seen."""
    given = () if "test" in manifest.made_splits else manifest.split("test")
    samples = given or manifest.samples
    known = predictor.uses.known
    kept = [sample for sample in samples if digest_prefix(sample) not in known]
    if given and len(kept) < len(samples):
        tell_seen(len(samples) - len(kept), "test", reporter)
    return predict_labelled(predictor, manifest, kept, data=data, reporter=reporter)

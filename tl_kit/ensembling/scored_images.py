"""Images on which an ensemble's members are scored: those of their data set that they have not seen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tl_kit.config import EnsembleConfig
from tl_kit.data.exclusions import scan_images
from tl_kit.data.manifest import Manifest, Sample
from tl_kit.errors import DataError, MemberError
from tl_kit.file_kinds import may_be_there
from tl_kit.inference.made_splits import split_config
from tl_kit.inference.predictor import Predictor
from tl_kit.reporting import Reporter
from tl_kit.storage.checkpoint import Checkpoint
from tl_kit.storage.seen_images import Use, uses_of

__all__ = ["scoring_images", "tell_copies", "tell_seen"]

FloatArray = NDArray[np.float64]


def scoring_images(
    config: EnsembleConfig, predictor: Predictor, reporter: Reporter
) -> tuple[Manifest, dict[str, list[Sample]]]:
    """The ``val`` and ``test`` images that may score the members, from the data in ``config`` or else the members' own.

    Raises MemberError if the members do not share their data or their splits, and DataError without validation images.
    """
    data = config.data or _common_data(predictor.members)
    made = split_config(predictor, data, image_column=config.image_column, label_column=config.label_column)
    manifest = scan_images(data, made, decode=config.decode, strict=config.strict, reporter=reporter)
    reporter.message(f"{len(predictor.members)} members, scored on {data}")
    _tell_unused(predictor, manifest, reporter)
    splits = {split: _clean(predictor, manifest.split(split), split, reporter) for split in ("val", "test")}
    if not splits["val"]:
        raise DataError(f"{data}: has no validation images, which choosing the best member needs")
    return manifest, splits


def _tell_unused(predictor: Predictor, manifest: Manifest, reporter: Reporter) -> None:
    """Say how many images of a made train split are of no use here, since no member was trained on them."""
    train = manifest.split("train")
    uses = [uses_of(member) for member in predictor.members]
    if "val" not in manifest.made_splits or any(each.unknown or each.seen(train, "train") for each in uses):
        return
    val, test = (len(manifest.split(split)) for split in ("val", "test"))
    reporter.message(
        f"no splits are given: {val} images choose, {test} score, and {len(train)} are not used, though no member was "
        "trained on them; put them into val/ and test/ folders to use them all"
    )


def _common_data(members: Sequence[Checkpoint]) -> Path:
    """The data set on which every member was trained, by content. Raises MemberError if they differ."""
    contents = {member.meta.get("data", {}).get("content") for member in members}
    root = members[0].meta.get("data", {}).get("root")
    if len(contents) != 1:
        raise MemberError(
            "the members were trained on different images or splits: name the folder to score on with --data; of a "
            "cross-validation, give every fold, and each as often as the others"
        )
    if not root:
        raise MemberError(
            f"{members[0].path}: does not say where its images lie, as of estimators that were saved: name the folder "
            "to score on with --data"
        )
    if not may_be_there(root):
        raise DataError(f"{root}: the members' data is no longer there; name its folder with --data")
    return Path(root)


def _clean(predictor: Predictor, samples: Sequence[Sample], split: str, reporter: Reporter) -> list[Sample]:
    """The images that may score the members: no member was trained on them, and no test image selected a member.

    A few copies across given splits are left out and counted. If a tenth or more were seen, the members do not share
    their splits, and MemberError is raised.
    """
    uses: tuple[Use, ...] = ("train",) if split == "val" else ("train", "selected on")
    kept = list(samples)
    for member in predictor.members:
        known = set(uses_of(member).seen(samples, *uses))
        if len(known) * 10 >= max(len(samples), 1):
            raise MemberError(
                f"{member.path}: was trained or selected on {len(known)} of the {len(samples)} {split} images, so its "
                "scores would be no evidence; train all members on the same splits"
            )
        kept = [sample for sample in kept if sample not in known]
    for name in predictor.uses.unknown if split == "val" else ():
        reporter.message(f"there is no record of the images that {name} has seen; they may be among these")
    if len(kept) < len(samples):
        tell_seen(len(samples) - len(kept), split, reporter)
    return kept


def tell_seen(count: int, split: str, reporter: Reporter) -> None:
    """Report the number of a split's images that are left out of scoring, because a member has seen them."""
    reporter.message(f"left out of {split}: {count} images that a member was trained or selected on")


def tell_copies(predictor: Predictor, outputs: Sequence[FloatArray], what: str, reporter: Reporter) -> None:
    """A message for each member whose ``outputs`` are exactly those of one before it; ``what`` then counts twice."""
    paths = [member.path for member in predictor.members]
    for number, later in enumerate(outputs):
        same = next((before for before in range(number) if np.array_equal(outputs[before], later)), None)
        if same is not None:
            reporter.message(
                f"warning: {paths[number]} predicts exactly what {paths[same]} does, so that this {what} counts twice"
            )

"""``ensemble``: from several checkpoints to one folder that predicts, with the receipt of what was gained."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tl_kit.api.evaluation import labels_for, seen, split_config
from tl_kit.api.predictor import Predictor, load, load_members
from tl_kit.config import CropConfig, EnsembleConfig
from tl_kit.data.crops import check_crops
from tl_kit.data.manifest import Manifest, Sample
from tl_kit.data.scan import scan
from tl_kit.ensembling.alignment import align_classes
from tl_kit.ensembling.folder import is_ensemble, write_ensemble
from tl_kit.ensembling.receipt import Receipt, SplitPredictions, build_receipt, verdict
from tl_kit.errors import CheckpointError, DataError, MemberError
from tl_kit.reporting import SILENT, Reporter
from tl_kit.training.checkpoint import Checkpoint, load_checkpoint
from tl_kit.training.files import new_numbered_folder

__all__ = ["EnsembleResult", "ensemble"]


@dataclass(frozen=True)
class EnsembleResult:
    """The ensemble's folder, its receipt, and the crops with which the images were scored."""

    checkpoint: str
    receipt: Receipt
    crops: CropConfig

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {"checkpoint": self.checkpoint, **asdict(self.crops), **self.receipt}


def ensemble(config: EnsembleConfig, *, reporter: Reporter = SILENT) -> EnsembleResult:
    """Combine finished checkpoints and score them on the validation and test images of their data.

    The ensemble predicts with the crops of ``config``, whatever an ensemble among its members was made with. Raises
    MemberError when the members' class names differ, or one was trained on many of the images to score on.
    """
    _check_out(config.out)
    check_crops(config.crops)
    members = _load(config.checkpoints)
    classes, _ = align_classes([m.classes for m in members], [str(m.path) for m in members])
    predictor = load_members(
        members[0].path, members, classes=classes, rule=config.rule, crops=config.crops, runtime=config.runtime
    )
    data = config.data or _common_data(members)
    manifest = scan(data, split_config(predictor))
    reporter.message(f"{len(members)} members, scored on {data}")
    val = _predict(predictor, manifest, "val", data, reporter)
    test = _predict(predictor, manifest, "test", data, reporter)
    if val is None:
        raise DataError(f"{data}: has no validation images, which choosing the best member needs")
    paths = [str(member.path) for member in members]
    receipt = build_receipt(config.rule, paths, val=val, test=test, samples=config.bootstrap, seed=config.seed)
    reporter.message(verdict(receipt))
    folder = _write(config, members, classes, receipt)
    return EnsembleResult(str(folder), receipt, config.crops)


def _load(paths: Sequence[Path]) -> list[Checkpoint]:
    """Members in the order given; an ensemble among them stands for its own members."""
    members: list[Checkpoint] = []
    for path in map(Path, paths):
        members.extend(load(path).members if is_ensemble(path) else [load_checkpoint(path, mapped=True)])
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


def _predict(
    predictor: Predictor, manifest: Manifest, split: str, data: Path, reporter: Reporter
) -> SplitPredictions | None:
    samples = _clean(predictor, manifest.split(split), split, reporter)
    if not samples:
        return None
    labels = labels_for(samples, manifest, predictor, data)
    stack, failures = predictor.member_probabilities([sample.path for sample in samples], reporter=reporter)
    kept = [index for index in range(len(samples)) if index not in failures]
    if not kept:
        raise DataError(f"{data}: none of the {len(samples)} images of {split} can be decoded")
    stack = stack[:, kept]
    return SplitPredictions(members=stack, ensemble=predictor.combine(stack), labels=labels[kept])


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
    if out is not None and Path(out).exists() and (not Path(out).is_dir() or any(Path(out).iterdir())):
        raise CheckpointError(f"--out {out}: is not empty; choose another folder or remove it")


def _write(config: EnsembleConfig, members: Sequence[Checkpoint], classes: Sequence[str], receipt: Receipt) -> Path:
    folder = Path(config.out) if config.out is not None else new_numbered_folder(Path(config.default_out), "ensemble")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        paths = [member.path for member in members]
        write_ensemble(folder, paths, classes=classes, rule=config.rule, crops=config.crops, receipt=dict(receipt))
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise CheckpointError(f"{folder}: cannot be written ({error.strerror})") from error
    return folder

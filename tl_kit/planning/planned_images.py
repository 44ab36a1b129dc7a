"""Images of the first run of a series: what a plan of folds, or of members that see other images, is made for."""

from __future__ import annotations

from tl_kit.config import FinetuneConfig, Vary
from tl_kit.data.folds import fold_manifests
from tl_kit.data.manifest import SPLITS, Manifest
from tl_kit.data.resampling import member_images
from tl_kit.finetuning.checks import check, check_folded, count_of_members
from tl_kit.finetuning.preparation import training_images
from tl_kit.reporting import Reporter

__all__ = ["first_images"]


def first_images(
    config: FinetuneConfig, *, folds: int | None, members: int | None, vary: Vary, reporter: Reporter
) -> Manifest | None:
    """Scan the images and return those of the series' first run; None where each run sees what a single run does.

    Raises DataError as ``finetune`` does, and ConfigError for a number of folds that the images do not allow, a teacher
    of folds, and fewer than two members.
    """
    if folds is not None:
        check_folded(config, folds)
        pool = training_images(config, reporter, pooled=True)
        return _told(fold_manifests(pool, folds, config.split)[0], f"fold 1 of {folds}", reporter)
    if vary not in ("folds", "bootstrap"):
        return None
    check(config)
    count = count_of_members(members)
    images = next(member_images(training_images(config, reporter), config, count, vary))
    varied = "without fold 1" if vary == "folds" else "bootstrap sample 1"
    return _told(images, f"member 1 of {count}, {varied}", reporter)


def _told(images: Manifest, name: str, reporter: Reporter) -> Manifest:
    counts = [f"{len(images.split(split)):,} {split}" for split in SPLITS if images.split(split)]
    reporter.message(f"the plan is that of {name}: {', '.join(counts)}")
    return images

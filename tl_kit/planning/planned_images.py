"""Images of the first run of a series: what a plan of folds, or of members that see other images, is made for."""

from __future__ import annotations

from tl_kit.config import FinetuneConfig, Vary
from tl_kit.data.folds import fold_manifests
from tl_kit.data.manifest import SPLITS, Manifest
from tl_kit.data.resampling import bootstrap_sample, leave_folds_out
from tl_kit.errors import ConfigError
from tl_kit.finetuning.checks import check, check_folded
from tl_kit.finetuning.preparation import training_images
from tl_kit.reporting import Reporter

__all__ = ["first_images"]


def first_images(
    config: FinetuneConfig, *, folds: int | None, members: int, vary: Vary, reporter: Reporter
) -> Manifest | None:
    """Scan the images, and return those of the first fold's or member's run; None where every run sees all of them.

    Raises DataError as ``finetune`` does, and ConfigError for a number of folds that the images do not allow, a teacher
    of folds, and fewer than two members.
    """
    if folds is not None:
        check_folded(config, folds)
        pool = training_images(config, reporter, pooled=True)
        return _told(fold_manifests(pool, folds, config.split)[0], f"fold 1 of {folds}", reporter)
    if vary in ("folds", "bootstrap"):
        check(config)
        if members < 2:
            raise ConfigError(f"--members {members}: must be at least 2")
    if vary == "folds":
        whole = training_images(config, reporter)
        part = leave_folds_out(whole, members, seed=config.split.split_seed)[0]
        return _told(part, f"member 1 of {members}, without fold 1", reporter)
    if vary == "bootstrap":
        whole = training_images(config, reporter)
        part = bootstrap_sample(whole, seed=config.seed, draw=1)
        return _told(part, f"member 1 of {members}, bootstrap sample 1", reporter)
    return None


def _told(images: Manifest, name: str, reporter: Reporter) -> Manifest:
    counts = [f"{len(images.split(split)):,} {split}" for split in SPLITS if images.split(split)]
    reporter.message(f"the plan is that of {name}: {', '.join(counts)}")
    return images

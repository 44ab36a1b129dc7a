"""Mirror images as augmentation: whether they keep their classes, asked of the pretrained features before training.

A mirrored shoe is a shoe, but a mirrored arrow to the left is an arrow to the right. Two heads are cross-validated on
the same training images: one is fitted to their features alone, the other to those of their mirror images too. Where
classes are told apart by what a mirror turns round, the second is worse. They see all stages side by side: the last one
alone has learned to ignore directions.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tl_kit.config import AugmentConfig, MirrorConfig
from tl_kit.data.manifest import Sample, labels_of
from tl_kit.data.splits import keys_of
from tl_kit.finetuning.checks import augment_options
from tl_kit.finetuning.choices.stage_rows import rows_of_views
from tl_kit.finetuning.closed_form import head_run, is_linear
from tl_kit.finetuning.run import Run
from tl_kit.finetuning.trunk_reuse import EVAL, MIRRORED
from tl_kit.freezing.probes import all_stages
from tl_kit.images.augmentation import level_of, resolve_augment
from tl_kit.machine.process_group import first_answer
from tl_kit.training.held_out import held_out

__all__ = ["MirrorChoice", "images_asked", "settle_mirror_images"]

_FLIP = "flip"


@dataclass(frozen=True)
class MirrorChoice:
    """The figures behind the choice.

    ``harm`` (nats): the NLL out of fold of heads that were fitted to mirror images too, above that of heads that were
    not; ``error``: its standard error, between units of images that belong together; ``images``: their number.
    """

    harm: float
    error: float
    images: int

    def harmful(self, config: MirrorConfig) -> bool:
        """True where the harm is more than noise, and enough to count."""
        return self.harm > max(config.margin * self.error, config.least)

    def doubtful(self, config: MirrorConfig) -> bool:
        """True where the harm is enough to count, but may be noise."""
        return self.harm > max(config.doubt * self.error, config.least)

    @property
    def figures(self) -> str:
        """The figures, in a phrase."""
        return (
            f"a head that is fitted to them too has an NLL {abs(self.harm):.3f} ± {self.error:.3f} "
            f"{'higher' if self.harm > 0 else 'lower'} (cross-validated, {self.images:,} training images)"
        )


def settle_mirror_images(run: Run) -> tuple[Run, MirrorChoice | None]:
    """The run without mirror images where these change their classes; and the figures, where it was asked.

    Training images alone decide (:class:`tl_kit.config.MirrorConfig`). What ``--aug flip`` says holds. A run that is
    taken up again keeps its choice.
    """
    if not _is_open(run):
        return run, None
    if run.resumed is not None and run.resumed.has_chosen:
        return (_without(run) if run.resumed.settled(_FLIP) == "off" else run), None
    choice = first_answer(_measured(run))
    if choice is None or not choice.harmful(run.config.mirror):
        if choice is not None and choice.doubtful(run.config.mirror):
            said = f"mirror images may change the classes: {choice.figures}; --aug flip=0 leaves them out"
            run.reporter.message(said)
        return run, choice
    run.reporter.message(
        f"no mirror images in training: {choice.figures}, so left and right differ; --aug flip=0.5 brings them back"
    )
    return _without(run), choice


def images_asked(run: Run) -> int:
    """Number of training images that the question takes a further pass of; 0 where it is not asked."""
    if not _is_open(run) or not run.weights.loaded:
        return 0
    return len(_drawn(run.manifest.split("train"), run.config.mirror, seed=run.config.split.split_seed))


def _is_open(run: Run) -> bool:
    """True where mirror images are to be taken, and nobody has said so."""
    given = isinstance(run.config.augment, AugmentConfig) or _FLIP in augment_options(run.config)
    return bool(run.augment.flip) and not run.policy.head_only and not given


def _without(run: Run) -> Run:
    level = level_of(run.augment_name)
    augment, name = resolve_augment(level, {**augment_options(run.config), _FLIP: 0.0}, images_per_class=1)
    return replace(run, augment=augment, augment_name=name)


def _measured(run: Run) -> MirrorChoice | None:
    """None where the network has no pretrained features or no linear head, or the classes too few images."""
    if not run.weights.loaded:
        return None
    seed = run.config.split.split_seed
    samples = _drawn(run.manifest.split("train"), run.config.mirror, seed=seed)
    head, reuse = head_run(run)
    if reuse is None or not samples or not is_linear(head, reuse):
        return None
    kept, views = rows_of_views(head, reuse, samples, (EVAL, MIRRORED), name="plain and mirrored")
    together = all_stages({stage: np.concatenate([view[stage] for view in views]) for stage in views[0]})
    plain, mirrored = np.split(together, 2)
    # One penalty for both: heads that choose their own differ in that too.
    penalty = replace(run.config.probe, folds=run.config.mirror.folds, strengths=(run.config.probe.usual,))
    labels, keys = labels_of(kept), np.array(keys_of(kept, seed=seed))
    with run.clock("train"):
        both, alone = (
            held_out(plain, labels, also=also, keys=keys, seed=seed, device=run.runtime.gpu, config=penalty)
            for also in (mirrored, plain)
        )
    if both is None or alone is None:
        return None
    harm, error = alone.saving(both)
    return MirrorChoice(harm, error, len(kept))


def _drawn(samples: Sequence[Sample], config: MirrorConfig, *, seed: int) -> list[Sample]:
    """About ``config.images`` of the samples, in the classes' proportions: of each class, of as many units as it has.

    A unit is what belongs together, such as the frames of a scene. A class of one unit is left out, for it cannot be
    held out. The draw follows from contents and seed: an image that leaves the run changes no other's place.
    """
    turns, by_class = Counter[str](), defaultdict[int, list[tuple[int, str, Sample]]](list)
    with_keys = zip(keys_of(samples, seed=seed), samples, strict=True)
    for key, sample in sorted(with_keys, key=lambda entry: (entry[0], entry[1].digest)):
        by_class[sample.label].append((turns[key], key, sample))
        turns[key] += 1
    share = min(1.0, config.images / max(1, len(samples)))
    found: list[Sample] = []
    for _, entries in sorted(by_class.items()):
        if len({key for _, key, _ in entries}) > 1:
            in_turn = sorted(entries, key=lambda entry: entry[:2])
            found += [sample for _, _, sample in in_turn[: max(config.folds, round(share * len(entries)))]]
    return found

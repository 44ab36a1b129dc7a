"""Cost estimate of a run, in time and memory: the amount of each kind of work times its cost in a trial."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from typing import Any

import torch

from tl_kit.clock import STAGES
from tl_kit.data.manifest import Sample
from tl_kit.finetuning.batch_sources import choose_views
from tl_kit.finetuning.closed_form import head_can_be_fitted, head_run, head_seconds
from tl_kit.finetuning.head_guard import is_guarded, networks_compared
from tl_kit.finetuning.run import Run
from tl_kit.finetuning.settings import Settings
from tl_kit.finetuning.trunk_reuse import EVAL, open_reuse, view_names
from tl_kit.machine.memory import peak_memory
from tl_kit.planning.trial import Rates, apply, closed_form_rates, gradient_rates
from tl_kit.reporting import SILENT, Reporter

__all__ = ["Estimate", "estimate", "least_seconds"]

_SPLITS = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Seconds in total and by stage, as a run reports them, and the peak memory of the process in bytes.

    Values that are already in the cache are not counted, since the run will find them. ``gpu_bytes`` is None on a CPU.
    ``head_alone``: seconds in total of the same run under ``--policy head``; None where it is one, or has no such head.
    """

    seconds: float
    stages: dict[str, float]
    bytes: int
    gpu_bytes: int | None = None
    head_alone: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


def estimate(run: Run, settings: Settings | None, *, started: float, reporter: Reporter = SILENT) -> Estimate:
    """The cost of a run whose policy is settled; ``settings`` is None for a head in closed form.

    ``started``: seconds that the preparation of the run took. A few steps are run on a few images, in a temporary
    cache; afterwards the run's model must not be used for anything else. Memory is that of a separate process.
    ``reporter`` hears of each of these steps, so that it can end them.
    """
    cost = _Cost()
    beside = settings is not None and _has_head_beside(run)
    guarded = beside and is_guarded(run)
    head = _head_cost(run, reporter) if settings is None or run.policy.fits_head_first or beside else None
    if head is not None and (settings is None or run.policy.fits_head_first or guarded):
        cost.fit_head(head, _SPLITS if settings is None else ("train",))
    if settings is not None:
        for names, epochs in _phases(run, settings):
            cost.stages["evaluate"] = 0.0  # only the last phase's evaluation counts
            compared = networks_compared(run) if guarded else 1
            _phase(run, settings, names, epochs, cost, compared=compared, reporter=reporter)
    return Estimate(
        seconds=started + sum(cost.stages.values()),
        stages={"prepare": started, **cost.stages},
        bytes=int(peak_memory() + min(sum(cost.pixels.values()), run.store.budget) + cost.rows),
        gpu_bytes=torch.cuda.max_memory_allocated(run.runtime.device) if run.runtime.on_gpu else None,
        head_alone=started + _alone(head) if beside and head is not None else None,
    )


def least_seconds(run: Run, settings: Settings, *, row: float) -> float:
    """Seconds that a run takes at least, from the ``row`` seconds of an image's pass forward, without any trial.

    An epoch that trains on no frozen layers' outputs passes each image forward. Where all layers train, the pass
    backward takes no less time.
    """
    every = sum(1 for _ in run.model.parameters())
    passes = 0
    for names, epochs in _phases(run, settings):
        if open_reuse(run, apply(run, names, settings)) is None:
            passes += epochs * (2 if len(names) == every else 1)
    return row * passes * len(run.manifest.split("train"))


def _phases(run: Run, settings: Settings) -> list[tuple[frozenset[str], int]]:
    """Consecutive epochs that train the same parameters: their names, and how many epochs."""
    return [(names, len(list(same))) for names, same in groupby(map(run.trainable, range(settings.epochs)))]


def _has_head_beside(run: Run) -> bool:
    """True where the run trains more than a head, and a head alone could be fitted to its pretrained features."""
    return bool(run.weights.loaded) and not run.policy.head_only and head_can_be_fitted(run)


@dataclass(frozen=True)
class _HeadCost:
    """Cost of a fitted head: by split the images missing from the cache, the rates of a pass over them, and the fits.

    ``rates`` is None where no image is missing. ``rows``: bytes of the features by split; ``fits``: seconds.
    """

    lacking: dict[str, list[Sample]]
    rates: Rates | None
    rows: dict[str, int]
    fits: float


@dataclass
class _Cost:
    """Seconds by stage, bytes of decoded images by digest and crop, bytes of the trunk's outputs."""

    stages: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    pixels: dict[tuple[str, bool], float] = field(default_factory=dict)
    rows: int = 0

    def decode(self, samples: Sequence[Sample], rates: Rates, *, crop: bool) -> None:
        """Add the cost of decoding; each image is decoded once per run."""
        new = {(sample.digest, crop) for sample in samples} - self.pixels.keys()
        self.stages["data"] += len(new) * rates.decode
        self.pixels |= dict.fromkeys(new, rates.pixel_bytes[crop])

    def fit_head(self, head: _HeadCost, splits: Sequence[str]) -> None:
        """Add the cost of a pass over the images of these splits that are missing from the cache, and of the fits."""
        lacking = [sample for split in splits for sample in head.lacking[split]]
        if lacking and head.rates is not None:
            self.decode(lacking, head.rates, crop=True)
            self.stages["features"] += len(lacking) * head.rates.row
        self.rows += sum(head.rows[split] for split in splits)
        self.stages["train"] += head.fits


def _head_cost(run: Run, reporter: Reporter) -> _HeadCost | None:
    """The cost of a head on the features of the run's network; None where it has none to reuse."""
    head, reuse = head_run(run)
    if reuse is None:
        return None
    lacking = {split: reuse.missing(head.manifest.split(split)) for split in _SPLITS}
    rates = closed_form_rates(head, reporter) if any(lacking.values()) else None
    reuse.fill("train")  # nothing is cached yet unless probes ran with a cache
    rows = {split: reuse.features.row_bytes * len(run.manifest.split(split)) for split in _SPLITS}
    return _HeadCost(lacking, rates, rows, head_seconds(head, reuse))


def _alone(head: _HeadCost) -> float:
    """Seconds of a run of this head alone."""
    cost = _Cost()
    cost.fit_head(head, _SPLITS)
    return sum(cost.stages.values())


def _phase(
    run: Run,
    settings: Settings,
    names: Collection[str],
    epochs: int,
    cost: _Cost,
    *,
    compared: int,
    reporter: Reporter,
) -> None:
    """Add the cost of the epochs that train these parameters; validation scores ``compared`` networks at the end."""
    reuse = open_reuse(run, apply(run, names, settings))
    views = 0 if reuse is None else choose_views(run, reuse, epochs=epochs)
    rates = gradient_rates(run, names, settings, views=views, epochs=epochs, reporter=reporter)
    train, scored = run.manifest.split("train"), run.manifest.split("val") + run.manifest.split("test")
    if reuse is None:
        cost.decode(train, rates, crop=not run.augment.draws_crops)
        cost.decode(scored, rates, crop=True)
    else:
        wanted = view_names(views) if views else (EVAL,)
        gaps = [*(reuse.missing(train, view) for view in wanted), reuse.missing(scored)]
        cost.decode(
            [sample for gap in gaps[:-1] for sample in gap], rates, crop=not (views and run.augment.draws_crops)
        )
        cost.decode(gaps[-1], rates, crop=True)
        cost.stages["features"] += rates.row * sum(map(len, gaps))
        cost.rows = max(cost.rows, reuse.features.row_bytes * (len(train) * len(wanted) + len(scored)))
    an_epoch = math.ceil(len(train) / settings.batch_size) * rates.step
    an_epoch += (
        len(run.manifest.split("val")) * rates.score + rates.save / 2
    )  # about every other one is the best so far
    cost.stages["train"] += epochs * an_epoch
    more = (compared - 1) * len(run.manifest.split("val"))
    cost.stages["evaluate"] += (len(scored) + more) * rates.score

"""The best result so far: chosen among all finished runs by validation, and complete on disk after each step."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tl_kit import metrics
from tl_kit.combining.member_choice import Limits, MemberChoice, choose_members
from tl_kit.config import CropConfig, FitConfig, RuleFitConfig
from tl_kit.data.manifest import Manifest, Sample, labels_of
from tl_kit.finetuning.result import Trained
from tl_kit.fitting.journal import RUNS, Entry
from tl_kit.fitting.ladder import Step
from tl_kit.fitting.refits import stand_ins
from tl_kit.storage.atomic import new_numbered_folder, writing
from tl_kit.storage.checkpoint import digest_prefix
from tl_kit.storage.ensemble_folder import write_ensemble
from tl_kit.storage.seen_images import Uses

__all__ = [
    "Best",
    "Pool",
    "beyond_limits",
    "choose_best",
    "chosen_steps",
    "fitted_on",
    "limits_of",
    "pool_of_runs",
    "probabilities_of",
    "remove_others",
    "why_nothing",
    "write_best",
]

FloatArray = NDArray[np.float64]
CHOSEN_BY_VAL = ("members", "temperature")
_BEST = "best"


@dataclass(frozen=True, eq=False, kw_only=True)
class Pool:
    """Finished runs and their probabilities of the same validation images: ``stack`` (m, n, k), ``labels`` (n,).

    ``names``: the runs that stand for them in the result; where one has trained again on validation images too, its
    refit. ``entries`` have none of these, since nothing is left to score them by. ``measured``: all finished runs.
    """

    entries: tuple[Entry, ...]
    measured: tuple[Entry, ...]
    names: tuple[str, ...]
    samples: tuple[Sample, ...]
    stack: FloatArray
    labels: NDArray[np.int64]

    @property
    def latencies(self) -> list[float]:
        """Milliseconds an image, (m,): the fastest measurement of runs of the same network on images of one size."""
        found: dict[tuple[str, int], float] = {}
        for entry in self.measured:
            kind, speed = (entry.attempt.step.model, entry.side), 0.0 if entry.speed is None else entry.speed.latency
            found[kind] = min(speed, found.get(kind, speed))
        return [found[entry.attempt.step.model, entry.side] for entry in self.entries]

    @property
    def parameters(self) -> list[float]:
        """Numbers of parameters, (m,)."""
        return [float(entry.parameters) for entry in self.entries]


@dataclass(frozen=True, eq=False, kw_only=True)
class Best:
    """The chosen members and the folder that holds them; ``chosen`` are their names, as in ``Pool.names``."""

    choice: MemberChoice
    chosen: tuple[str, ...]
    folder: Path


def _scored(entries: Sequence[Entry]) -> list[tuple[Entry, Trained]]:
    """The finished runs that validation images score, with their outcomes. A whole head replaces one of a sample."""
    whole = {e.attempt.step.model for e in entries if e.finished and e.attempt.step.rung == "head"}
    found = [(entry, entry.trained) for entry in entries if entry.finished and entry.trained]
    scored = [(entry, trained) for entry, trained in found if entry.attempt.step.rung != "refit"]
    return [(e, trained) for e, trained in scored if not (e.attempt.step.images and e.attempt.step.model in whole)]


def pool_of_runs(entries: Sequence[Entry]) -> Pool:
    """The finished runs, on the validation images that all of them could decode."""
    found, again = _scored(entries), stand_ins(entries)
    splits = [trained.manifest.split("val") for _, trained in found]
    kept = [{sample.digest: row for row, sample in enumerate(split)} for split in splits]
    samples = tuple(sample for sample in splits[0] if all(sample.digest in rows for rows in kept))
    stack = [
        probabilities_of(trained)[[rows[sample.digest] for sample in samples]]
        for (_, trained), rows in zip(found, kept, strict=True)
    ]
    scored = tuple(entry for entry, _ in found)
    names = tuple(again.get(entry.name, entry.name) for entry in scored)
    measured = tuple(entry for entry in entries if entry.finished)
    return Pool(
        entries=scored,
        measured=measured,
        names=names,
        samples=samples,
        stack=np.stack(stack),
        labels=labels_of(samples),
    )


def probabilities_of(trained: Trained) -> FloatArray:
    """The run's probabilities of its validation images, (n, k)."""
    return metrics.softmax(trained.logits["val"].numpy().astype(np.float64))


def limits_of(config: FitConfig) -> Limits:
    """The limits on the whole result."""
    parameters = config.max_params
    return Limits(
        members=config.ladder.members,
        latency=config.max_latency,
        parameters=None if parameters is None else float(parameters),
    )


def beyond_limits(entries: Sequence[Entry], config: FitConfig) -> str:
    """Return the message of a fit whose networks are all over the limits, with the figure of the nearest network."""
    finished, told = [entry for entry in entries if entry.finished], []
    speeds = [(entry.speed.latency, entry.attempt.step.model) for entry in finished if entry.speed is not None]
    if config.max_latency is not None and speeds and min(speeds)[0] > config.max_latency:
        latency, name = min(speeds)
        nearest = f"the fastest so far, {name}, takes {latency:.3g} ms an image"
        told.append(f"--max-latency {config.max_latency:g} ({nearest})")
    count, name = min((entry.parameters, entry.attempt.step.model) for entry in finished)
    if config.max_params is not None and count > float(config.max_params):
        told.append(f"--max-params {float(config.max_params):g} (the smallest so far, {name}, has {count:,})")
    limits = " and ".join(told) or "both --max-latency and --max-params"
    return f"no network is within {limits}; raise {'it' if len(told) == 1 else 'them'}"


def why_nothing(entries: Sequence[Entry], config: FitConfig, stopped: str, *, least: float) -> str:
    """Return the message of a fit without any result; ``least``: seconds that it needs, if known."""
    attempts = [entry.attempt for entry in entries]
    if any(entry.finished for entry in entries):
        return beyond_limits(entries, config)
    failed = next((attempt for attempt in attempts if attempt.status == "failed"), None)
    short = any(attempt.status in ("no time", "out of time") for attempt in attempts)
    if failed is None and short:
        more = f"about {math.ceil(least)} s" if least else "more"
        return f"--time {config.time:g}: is too short for a first head; give {more}"
    return stopped if failed is None else f"{failed.step.model}: {failed.note}"


def choose_best(pool: Pool, config: FitConfig, *, prefer: str | None = None) -> MemberChoice | None:
    """The members that validation supports; None if no run is within the limits."""
    return choose_members(
        pool.stack,
        pool.labels,
        prefer=prefer or config.prefer,
        latencies=pool.latencies,
        parameters=pool.parameters,
        limits=limits_of(config),
        folds=RuleFitConfig.folds,
        seed=config.seed,
    )


def chosen_steps(entries: Sequence[Entry], best: Best | None, manifest: Manifest, *, share: float) -> list[Step]:
    """The steps of the best result's members; none where validation images are fewer than ``share`` of training images.

    A refit would then bring little.
    """
    if best is None or len(manifest.split("val")) < share * len(manifest.split("train")):
        return []
    scored = _scored(entries)
    return [scored[member][0].attempt.step for member in best.choice.members]


def fitted_on(pool: Pool) -> Uses:
    """The validation images: they chose the members and the temperature."""
    return Uses(selected=frozenset(map(digest_prefix, pool.samples)), chose=CHOSEN_BY_VAL)


def write_best(folder: Path, pool: Pool, choice: MemberChoice, classes: Sequence[str]) -> Best:
    """The only run there is, if it has no temperature; else a new ensemble, complete when this returns.

    An ensemble of a single member is one too: its record says that validation chose it. Raises CheckpointError if it
    cannot be written.
    """
    chosen = tuple(pool.names[member] for member in choice.members)
    runs = [folder / RUNS / name for name in chosen]
    if len(pool.entries) == 1 and choice.whole.fitted.temperature == 1:
        return Best(choice=choice, chosen=chosen, folder=runs[0])
    target = new_numbered_folder(folder, _BEST)
    with writing(target):
        write_ensemble(
            target, runs, classes=classes, rule=choice.whole.fitted, crops=CropConfig(), fitted_on=fitted_on(pool)
        )
    return Best(choice=choice, chosen=chosen, folder=target)


def remove_others(folder: Path, best: Best | None) -> None:
    """Remove the ensembles that the fit's folder does not stand for any more, also half-written ones."""
    for other in folder.glob(f"{_BEST}-*"):
        if best is None or other != best.folder:
            shutil.rmtree(other, ignore_errors=True)

"""Refits: a run that is a member of the result trains once more, on the validation images too.

By then, validation images have chosen all that they have to choose: the members, and what each head guard kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tl_kit.config import FinetuneConfig, LoopConfig
from tl_kit.data.manifest import Manifest
from tl_kit.errors import TrainingError
from tl_kit.finetuning.checks import augment_options
from tl_kit.finetuning.run import Settled
from tl_kit.fitting.journal import RUNS, Entry
from tl_kit.fitting.ladder import Step, first_run
from tl_kit.images.augmentation import level_of
from tl_kit.storage.checkpoint import read_meta

__all__ = ["Refit", "first_entry", "refit_images", "refit_of", "stand_ins"]

_SAME = ("batchnorm", "augment", "balance")  # rules by the number of images must not give another method


@dataclass(frozen=True, kw_only=True)
class Refit:
    """The second training of ``entry``'s run: its options, its estimated seconds, and what is kept.

    ``seconds``: by those of the first; None where it was interrupted, and its last session alone is known.
    """

    entry: Entry
    options: FinetuneConfig
    seconds: float | None
    settled: Settled


def refit_images(manifest: Manifest) -> Manifest:
    """The same images, with the validation images moved to the training images."""
    samples = (replace(each, split="train") if each.split == "val" else each for each in manifest.samples)
    return replace(manifest, samples=tuple(samples))


def first_entry(step: Step, entries: Sequence[Entry]) -> Entry | None:
    """Return the finished run that the refit ``step`` repeats; None without one, and for any other step."""
    if step.rung != "refit":
        return None
    return next((each for each in entries if each.attempt.step == first_run(step) and each.finished), None)


def refit_of(
    step: Step,
    entries: Sequence[Entry],
    options: FinetuneConfig,
    *,
    manifest: Manifest,
    folder: Path,
    least: int = LoopConfig.epochs,
) -> Refit:
    """The refit that ``step`` is, by the record of its first run in the fit's ``folder``.

    It has about as many updates, but ``least`` epochs at least; a run of fewer epochs keeps its own number. Raises
    CheckpointError where the record cannot be read, and TrainingError where it does not say how the run was trained.
    """
    entry = first_entry(step, entries)
    assert entry is not None
    first = folder / RUNS / entry.name
    record = read_meta(first)
    settings, side = record.get("settings") or {}, record.get("config", {}).get("img_size")
    kept = {name: (record.get("guard") or {}).get(name, 1.0) for name in ("alpha", "temperature")}
    views = settings.get("views") or options.cache.default_views
    known = all(isinstance(settings.get(name), str) for name in _SAME) and "val" in record.get("kinds", {})
    if not known or not all(isinstance(number, int | float) for number in (*kept.values(), views, side or 0)):
        raise TrainingError(f"{entry.name}: its record does not say how it was trained")
    before, more = len(manifest.split("train")), len(manifest.split("val"))
    growth = (before + more) / before
    epochs = max(min(entry.epochs, least), round(entry.epochs / growth))
    batchnorm, augment, balance = (settings[name] for name in _SAME)
    flip = {"flip": settings["flip"]} if isinstance(settings.get("flip"), int | float) else {}
    return Refit(
        entry=entry,
        options=replace(
            options,
            policy=entry.policy,
            epochs=epochs,
            img_size=side,
            batchnorm=batchnorm,
            augment=level_of(augment),
            augment_options={**augment_options(options), **flip},
            balance=balance,
            cache=replace(options.cache, default_views=views),
        ),
        seconds=None if entry.estimate is None else _seconds(entry, record, growth, epochs),
        settled=Settled(first=first, record=record, **kept),
    )


def _seconds(entry: Entry, record: Mapping[str, Any], growth: float, epochs: int) -> float:
    """Estimated seconds of a refit, by those of its first run. The cache has the outputs of frozen layers already."""
    found = record.get("seconds", {}).get("features", 0.0) if record["settings"].get("views") else 0.0
    cached = found if isinstance(found, int | float) else 0.0
    return (entry.seconds - cached) * growth * epochs / entry.epochs + cached * (growth - 1)


def stand_ins(entries: Sequence[Entry]) -> dict[str, str]:
    """Names of the runs that have a finished refit, each with the refit's name."""
    refits = {first_run(e.attempt.step): e.name for e in entries if e.finished and e.attempt.step.rung == "refit"}
    return {e.name: refits[e.attempt.step] for e in entries if e.finished and e.attempt.step in refits}

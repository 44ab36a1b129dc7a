"""Refits: a run that is a member of the result trains once more, on the validation images too.

By then, validation images have chosen all that they have to choose: the members, and what each head guard kept.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tl_kit.config import FinetuneConfig, LoopConfig
from tl_kit.data.manifest import Manifest, Sample
from tl_kit.errors import TrainingError
from tl_kit.finetuning.run import Settled
from tl_kit.fitting.journal import Entry
from tl_kit.fitting.ladder import Step, first_run

__all__ = ["Refit", "refit_images", "refit_of", "stand_ins"]

_SAME = ("batchnorm", "augment", "balance")  # rules by the number of images must not give another method


@dataclass(frozen=True, kw_only=True)
class Refit:
    """The second training of ``entry``'s run: its epochs, its seconds over those of the first, and what is kept."""

    entry: Entry
    epochs: int
    ratio: float
    settled: Settled

    def options(self, options: FinetuneConfig, record: Mapping[str, Any]) -> FinetuneConfig:
        """The step's options with those of the first run that follow from its number of images, by its ``record``.

        Raises TrainingError where the record has none.
        """
        settings = record.get("settings") or {}
        if not all(isinstance(settings.get(name), str) for name in _SAME):
            raise TrainingError(f"{self.entry.name}: its record does not say how it was trained")
        batchnorm, augment, balance = (settings[name] for name in _SAME)
        return replace(options, batchnorm=batchnorm, augment=augment, balance=balance)


def refit_images(manifest: Manifest, tests: Collection[Sample]) -> Manifest:
    """The same images, those of validation among the training images; copies of ``tests`` are left out of them."""
    copies = {sample.digest for sample in tests}
    return replace(
        manifest,
        samples=tuple(
            replace(sample, split="train")
            for sample in manifest.samples
            if sample.split == "train" or sample.digest not in copies
        ),
    )


def refit_of(step: Step, entries: Sequence[Entry], manifest: Manifest, *, least: int = LoopConfig.epochs) -> Refit:
    """The refit that ``step`` is, for a run in ``entries``: about as many updates, but ``least`` epochs at least.

    A run of fewer epochs than that keeps its own number.
    """
    entry = next(each for each in entries if each.attempt.step == first_run(step) and each.finished)
    before, more = len(manifest.split("train")), len(manifest.split("val"))
    growth = (before + more) / before
    epochs = max(min(entry.epochs, least), round(entry.epochs / growth))
    guard = None if entry.trained is None else entry.trained.result.guard
    settled = Settled() if guard is None else Settled(alpha=guard["alpha"], temperature=guard["temperature"])
    return Refit(entry=entry, epochs=epochs, ratio=growth * epochs / entry.epochs, settled=settled)


def stand_ins(entries: Sequence[Entry]) -> dict[str, str]:
    """Names of the runs that have a finished refit, each with the refit's name."""
    refits = {first_run(e.attempt.step): e.name for e in entries if e.finished and e.attempt.step.rung == "refit"}
    return {e.name: refits[e.attempt.step] for e in entries if e.finished and e.attempt.step in refits}

"""Prices of steps: estimates that decide what the time that is left allows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from tl_kit.config import BudgetConfig, FinetuneConfig, LadderConfig
from tl_kit.data.manifest import Manifest
from tl_kit.fitting.budget import Budget
from tl_kit.fitting.candidates import Candidate, candidate_of
from tl_kit.fitting.journal import Entry
from tl_kit.fitting.ladder import Step, waiting
from tl_kit.fitting.refits import Refit, refit_images
from tl_kit.planning.head_passes import head_passes
from tl_kit.planning.price import Price, price_of
from tl_kit.reporting import Reporter

__all__ = ["FIXED", "Admission", "Prices", "last_layers"]

FIXED = 1.5  # seconds of a run beside its images: build the network, write the checkpoint
_PASSES = 2  # over the images in a first head's run, where crop modes are compared


@dataclass(frozen=True, kw_only=True)
class Admission:
    """Admission of a step: whether it may begin, its estimate in seconds (None: unknown), and its epochs.

    ``needed``: the estimate with its margin, for what must follow too. ``tried``: False where no step of a run that
    trains was timed, and ``needed`` is less than the whole: the passes of its images alone.
    ``views``: augmented views an image, where frozen layers' outputs are kept; None: the default. ``sample``: of a
    first head that there is no time for, the number of training images that there is time for; ``least``: seconds of a
    fit that has time for the smallest sample. ``crop_mode``: the one of a head that has time where the comparison of
    crop modes has not.
    """

    admitted: bool
    seconds: float | None = None
    epochs: int | None = None
    policy: str = "head"
    needed: float = 0.0
    tried: bool = True
    views: int | None = None
    sample: int = 0
    least: float = 0.0
    crop_mode: str | None = None

    @property
    def hopeless(self) -> bool:
        """True for a first head that does not even have time for the smallest sample."""
        return self.least > 0 and not self.sample

    def smaller(self, step: Step) -> Step | None:
        """The head that has time where ``step`` has not: in one crop mode, or of a sample."""
        if self.crop_mode is not None:
            return replace(step, crop_mode=self.crop_mode)
        return replace(step, rung="sample", images=self.sample) if self.sample else None

    def why_not(self, step: Step, left: float) -> str:
        """Say in words why the step does not begin, with ``left`` seconds to go."""
        if left <= 0:
            return "the time is over"
        after = " with the run in full after it" if step.rung == "short" else ""
        after = " with the comparison of crop modes" if self.crop_mode is not None else after
        digits = 1 if f"{self.needed:.0f}" == f"{left:.0f}" else 0
        needed, left_over = (f"{seconds:.{digits}f} s" for seconds in (self.needed, left))
        return f"needs {'about' if self.tried else 'at least'} {needed}{after}, {left_over} are left"

    def overrun(self, seconds: float) -> str:
        """Say in words why the step was ended after ``seconds``."""
        late = self.seconds is not None and seconds > self.seconds
        return "it took longer than its estimate" if late else "the time was over"


@dataclass
class Prices:
    """Estimates by what has been measured so far; ``known``: of trained runs, by network, crop mode and "in part".

    ``tests``: number of test images, which a head that becomes a member predicts at the end.
    """

    candidates: Sequence[Candidate]
    manifest: Manifest
    budget: Budget
    config: BudgetConfig
    ladder: LadderConfig
    known: dict[tuple[str, str | None, bool], Price] = field(default_factory=dict)
    tests: int = 0

    def admit(self, step: Step, options: FinetuneConfig, entries: Sequence[Entry], reporter: Reporter) -> Admission:
        """Decide by the estimate of the step, and of those that must follow it."""
        if step.trains:
            return self._trained(step, options, entries, reporter)
        row = self._row(step.model, entries)
        if row is None:
            return Admission(admitted=self.budget.left > 0)
        compared = step.rung == "view" and self._compared(step.model, entries)
        images = len(self.manifest.split("val") if compared else self.manifest.samples)
        found = self._head(step, entries, row, images * (_PASSES if step.crop_mode is None else 1))
        cached = self._head(step, entries, row, 0)  # with all features in the cache
        if found.admitted or not cached.admitted or not self._here(step.model, entries):
            return found
        passes = head_passes(self.manifest, options, row=row, reporter=reporter)
        return found if passes is None else self._head(step, entries, row, passes.train + passes.val + passes.compared)

    def refit(self, refit: Refit, entries: Sequence[Entry], reporter: Reporter) -> Admission:
        """Decide by what the first run has taken; of one that was interrupted, by a trial."""
        seconds, margin = refit.seconds, self.config.margin
        if seconds is None:
            factor, measured = self._correction(entries)
            price = price_of(refit_images(self.manifest), refit.options, reporter=reporter)
            seconds, margin = price.seconds * factor, margin if measured else self.config.first_margin
        needed = seconds * margin
        return Admission(
            admitted=needed <= self.budget.left,
            seconds=seconds,
            epochs=refit.options.epochs,
            policy=refit.options.policy,
            needed=needed,
            views=refit.options.cache.default_views,
        )

    def _pass(self, model: str, entries: Sequence[Entry]) -> float:
        """Seconds of an image's pass through the network, no more than it takes, decoding left out; 0 if unknown."""
        found = 0.0
        for entry in entries:
            step, stages = entry.attempt.step, {} if entry.trained is None else entry.trained.result.seconds
            if step.model == model and step.rung == "head":
                passes = _PASSES if step.crop_mode is None else 1
                found = max(found, stages.get("features", 0.0) / (passes * len(self.manifest.samples)))
        return found

    def may_train_early(self, options: FinetuneConfig, entries: Sequence[Entry]) -> bool:
        """True where the time may do for training on frozen features of every training image, in all its views."""
        row = (self._row(options.model, entries) or 0.0) * self._scale(options)
        return (1 + self.ladder.part_views) * len(self.manifest.split("train")) * row <= self.budget.left

    def _scale(self, options: FinetuneConfig) -> float:
        """Ratio of pixels: an image at the options' size, over one at the size that the network's head sees."""
        own = candidate_of(self.candidates, options.model).cost.side
        return ((options.img_size or own) / own) ** 2

    def _head(self, step: Step, entries: Sequence[Entry], row: float, images: int) -> Admission:
        """Admission of a head, by heads that have ended: ``images`` pass through the network, ``row`` seconds each."""
        heads = [each for each in entries if each.finished and each.attempt.step.rung in ("head", "view")]
        fits = min((_fits(entry) for entry in heads), default=0.0)
        megabytes = candidate_of(self.candidates, step.model).megabytes
        download = 0.0 if self._here(step.model, entries) else megabytes / self.config.download
        seconds = FIXED + fits + images * row + download
        needed = (seconds + self.tests * row) * self.config.margin
        return Admission(admitted=needed <= self.budget.left, seconds=seconds, needed=needed)

    def _here(self, model: str, entries: Sequence[Entry]) -> bool:
        """True where the network's weights are on this machine."""
        used = any(entry.finished and entry.attempt.step.model == model for entry in entries)
        return used or not candidate_of(self.candidates, model).remote

    def _compared(self, model: str, entries: Sequence[Entry]) -> bool:
        """True where the network's head compared crop modes: the cache has the training images in both."""
        return any(e.finished and e.attempt.step == Step("head", model, e.attempt.step.seed, None) for e in entries)

    def _row(self, model: str, entries: Sequence[Entry]) -> float | None:
        """Seconds an image of a head's run: measured, or by the operations of the measured network most like it."""
        heads = [each for each in entries if each.finished and not each.attempt.step.trains]
        rows = {each.attempt.step.model: each.speed.row for each in heads if each.speed is not None}
        if model in rows:
            return rows[model]
        costs = {each.name: each.cost.operations for each in self.candidates}
        rows = {name: row for name, row in rows.items() if name in costs}
        if not rows:
            return None
        like = min(rows, key=lambda name: abs(math.log(costs[name] / costs[model])))
        return rows[like] * max(1.0, costs[model] / costs[like])

    def _trained(self, step: Step, options: FinetuneConfig, entries: Sequence[Entry], reporter: Reporter) -> Admission:
        scale = self._scale(options)
        row = (self._row(step.model, entries) or 0.0) * scale
        end = self.config.margin * self.tests * row  # which predicts a new member's test images
        left = self.budget.left - end
        passes = len(self.manifest.split("train")) * row
        if passes > left:
            return Admission(admitted=False, needed=passes + end, tried=False)
        part = step.rung == "part"
        if part:
            options = last_layers(options, self.candidates, entries, self.ladder)
        key = (step.model, step.crop_mode, part)
        if key not in self.known:
            self.known[key] = price_of(
                self.manifest,
                options,
                row=self._pass(step.model, entries) * scale,
                most=left / (self.ladder.least * self.config.margin),
                reporter=reporter,
            )
        price = self.known[key]
        shortens = step.rung in ("full", "part")
        if not price.tried:
            needed = price.seconds * (self.ladder.least if shortens else 1.0)
            return Admission(admitted=False, needed=needed + end, tried=False)
        factor, measured = self._correction(entries)
        full = price.seconds * factor
        margin = self.config.margin if measured else self.config.first_margin
        if step.rung == "short":
            found = self._short(price, full, margin, left)
            return replace(found, needed=found.needed + end)
        epochs, needed = price.epochs, full * margin
        if needed > left and shortens:
            epochs = int(price.epochs * left / needed)
        admitted = needed <= left or (shortens and epochs >= self.ladder.least * price.epochs)
        seconds = full * epochs / price.epochs
        return Admission(
            admitted=admitted,
            seconds=seconds,
            epochs=epochs,
            policy=price.policy,
            needed=needed + end,
            views=options.cache.default_views if part else None,
        )

    def _short(self, price: Price, full: float, margin: float, left: float) -> Admission:
        """A short run is worth its time only if the run in full still fits after it."""
        epochs = max(1, round(price.epochs * self.ladder.short))
        seconds = full * epochs / price.epochs
        needed = (seconds + full) * margin
        return Admission(admitted=needed <= left, seconds=seconds, epochs=epochs, policy=price.policy, needed=needed)

    def _correction(self, entries: Sequence[Entry]) -> tuple[float, bool]:
        """The time of trained runs over their estimates; 1 where none has ended. Those of refits are measured times."""
        first = [e for e in entries if e.finished and e.attempt.step.trains and e.attempt.step.rung != "refit"]
        ratios = [entry.seconds / entry.estimate for entry in first if entry.estimate]
        return (max(ratios[-2:]), True) if ratios else (1.0, False)


def last_layers(
    options: FinetuneConfig, candidates: Sequence[Candidate], entries: Sequence[Entry], config: LadderConfig
) -> FinetuneConfig:
    """The same options, under which ``--policy auto`` trains the last layers of few images too.

    While heads of other networks wait, these are few last layers, on few views.
    """
    if not waiting([entry.attempt for entry in entries], candidates):
        return replace(options, auto=replace(options.auto, last_groups_from=0))
    auto = replace(options.auto, last_groups_from=0, last_share=config.part_share)
    views = min(options.cache.default_views, config.part_views)
    return replace(options, auto=auto, cache=replace(options.cache, default_views=views))


def _fits(entry: Entry) -> float:
    """Seconds of a head's run that are not passes over images."""
    stages = {} if entry.trained is None else entry.trained.result.seconds
    return stages.get("train", 0.0)

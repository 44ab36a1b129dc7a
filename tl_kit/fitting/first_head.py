"""The first head, where the time may not allow a pass over all images: its pace, and the sample that fits."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tl_kit.config import FitConfig
from tl_kit.data.manifest import Manifest, in_order, labels_of
from tl_kit.finetuning.trunk_reuse import shard_rows
from tl_kit.fitting.budget import Budget, OutOfTimeError, TimedReporter
from tl_kit.fitting.ladder import Step
from tl_kit.fitting.prices import FIXED
from tl_kit.optimization.penalty_choice import stratified_part
from tl_kit.reporting import Reporter

__all__ = ["FirstHead", "Pace", "TooSlowError", "sampled"]

_LEAST = 2  # training images of a class in a sample
_SMALLER = 0.8  # of a sample, at most, where a larger one was too slow
_FITS = 0.3  # seconds of a head's fits, over those of its passes: 0.1 for 5 classes, 0.33 for 46
_BATCHES = 2  # the first chooses kernels, and counts only where it takes long


class TooSlowError(OutOfTimeError):
    """A head's pass over its images, at its pace so far, takes ``needed`` seconds; only ``left`` of them are left."""

    def __init__(self, needed: float, left: float) -> None:
        super().__init__(needed, left)
        self.needed, self.left = needed, left


@dataclass
class _Rate:
    """Seconds an image, over all images that were counted."""

    seconds: float = 0.0
    images: int = 0

    @property
    def row(self) -> float:
        """0 while nothing is known."""
        return self.seconds / self.images if self.images else 0.0


class Pace(TimedReporter):
    """A reporter that measures a first head's pace, and ends it early where its images take longer than there is time.

    Training images, then ``val`` images are decoded and pass the network; so do ``tests`` images at the end of the fit.
    A head is judged once it has used the share ``evidence`` of the time that it had. What is known of the pace stays
    for the next try.
    """

    def __init__(self, reporter: Reporter, budget: Budget, *, val: int, tests: int, evidence: float) -> None:
        super().__init__(reporter, budget)
        self.budget, self.evidence = budget, evidence
        self.val, self.tests, self.later = val, tests, val + tests
        self._rates = {"decode": _Rate(), "features": _Rate()}
        self._batches, self.cached = 0, 0
        self.begin(0)

    def begin(self, train: int) -> None:
        """A new try begins, on so many training images."""
        self._judged_from = self.budget.elapsed + self.evidence * self.budget.left
        self._rest = dict.fromkeys(self._rates, 0)
        self._later = self.later
        self._kind, self._last, self._passed, self._pass = "", 0.0, False, 0
        self._train = train

    def start(self, stage: str, total: int) -> None:
        """A stage begins: ``decode``, or ``features`` of a split."""
        super().start(stage, total)
        self._kind, self._last = stage.partition(" ")[0], self.budget.elapsed
        if self._kind not in self._rates:
            return
        if stage == "features val" or (self._kind == "decode" and self._passed and total <= self.val):
            self._later = self.tests
        self._rest["features"] = total
        if self._kind == "decode":
            self._rest["decode"] = total
        else:
            self._passed, self._pass = True, 0 if self._passed else total

    def advance(self, steps: int = 1, **figures: float) -> None:
        """Some images are done. Raises TooSlowError."""
        super().advance(steps, **figures)
        if self._kind not in self._rates or not steps:
            return
        now, rate = self.budget.elapsed, self._rates[self._kind]
        self._batches += self._kind == "features"
        judged = now >= self._judged_from
        if self._kind == "decode" or self._batches >= _BATCHES or judged:
            rate.seconds += now - self._last
            rate.images += steps
        self._last = now
        self._rest[self._kind] -= steps
        if self._kind == "features" and self._pass:  # the first pass, in the network's own crop mode
            file, done = shard_rows(self._pass, steps), self._pass - self._rest["features"]
            self.cached = max(self.cached, (done - 1) // file * file)
        if judged and self.row and (needed := self._needed()) > self.budget.left:
            raise TooSlowError(needed, self.budget.left)

    @property
    def row(self) -> float:
        """Seconds an image, decoding included, as far as they are known."""
        return sum(rate.row for rate in self._rates.values())

    def _needed(self) -> float:
        passes = sum(rate.row * (self._rest[kind] + self._later) for kind, rate in self._rates.items())
        return FIXED + passes + _FITS * self.row * self._train


class FirstHead:
    """The first head of a fit, without which there is no result: on fewer training images where time is short.

    ``manifest``: all images of the fit. The reporter is that of all steps.
    """

    def __init__(self, reporter: Reporter, budget: Budget, config: FitConfig, manifest: Manifest) -> None:
        self.budget, self.config, self.manifest = budget, config.budget, manifest
        self._caches = config.cache.size_gb > 0
        val, tests = (len(manifest.split(split)) for split in ("val", "test"))
        self._pace = Pace(reporter, budget, val=val, tests=tests, evidence=config.budget.evidence)
        self._next: Step | None = None

    def try_it(self, step: Step) -> Reporter:
        """Return the reporter of a try."""
        self._pace.begin(step.images or len(self.manifest.split("train")))
        return self._pace

    def sample(self) -> Step | None:
        """The head of a sample that comes next, once; None where no head was too slow."""
        step, self._next = self._next, None
        return step

    def shrink(self, step: Step, slow: TooSlowError) -> str:
        """Let the head of a sample follow that fits into the time, and return in words why ``step`` does not.

        No head follows where the time does not allow two training images of each class.
        """
        needed = f"needs about {slow.needed:.0f} s more, {slow.left:.0f} s are left"
        train, margin, row = len(self.manifest.split("train")), self.config.first_margin, self._pace.row
        beside = FIXED + self._pace.later * row
        cached = self._pace.cached / train if self._caches else 0.0
        each = (1 + _FITS - cached) * row  # of a training image
        images = min(int((self.budget.left / margin - beside) / each), int(_SMALLER * (step.images or train)))
        least = _LEAST * len(self.manifest.classes)
        if images < least:
            return f"{needed}; with {least:,} training images about {margin * (beside + least * each):.0f} s"
        self._next = replace(step, rung="sample", images=images)
        return needed


def sampled(manifest: Manifest, images: int, *, seed: int) -> Manifest:
    """The same manifest with about so many training images, in the classes' proportions; two at least of each class."""
    train = manifest.split("train")
    part = stratified_part(labels_of(train), images, least=_LEAST, seed=seed)
    others = (sample for sample in manifest.samples if sample.split != "train")
    return replace(manifest, samples=in_order([*(train[position] for position in part), *others]))

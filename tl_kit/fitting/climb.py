"""The climb: one step of the ladder after the other, and after each a whole result on disk."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from tl_kit.combining.member_choice import MemberChoice
from tl_kit.config import FinetuneConfig
from tl_kit.data.manifest import Manifest, labels_of
from tl_kit.errors import CheckpointError, ConfigError, DataError, TlKitError
from tl_kit.finetuning.finetune import finetune_on
from tl_kit.finetuning.result import Trained
from tl_kit.fitting.best_result import (
    Best,
    Pool,
    choose_best,
    chosen_steps,
    pool_of_runs,
    probabilities_of,
    remove_others,
    why_nothing,
    write_best,
)
from tl_kit.fitting.budget import Budget, OutOfTimeError, TimedReporter
from tl_kit.fitting.candidates import Candidate
from tl_kit.fitting.first_head import FirstHead, sampled
from tl_kit.fitting.fit_result import FitResult, finish
from tl_kit.fitting.fit_tracking import track_step
from tl_kit.fitting.journal import RUNS, Entry, Journal
from tl_kit.fitting.ladder import Attempt, Status, Step, next_step, waiting
from tl_kit.fitting.prices import Admission, Prices
from tl_kit.fitting.refits import Refit, first_entry, refit_images, refit_of
from tl_kit.fitting.speed import speed_of
from tl_kit.fitting.step_options import StepOptions
from tl_kit.fitting.step_words import named, reason_of
from tl_kit.metrics import image_losses
from tl_kit.planning.price import uncropped
from tl_kit.planning.stage_gain import earlier_stages_add
from tl_kit.reporting import SILENT, Reporter
from tl_kit.series.records import SeriesRecords
from tl_kit.stopping import StoppedError
from tl_kit.storage.atomic import safe_name
from tl_kit.storage.checkpoint import load_checkpoint
from tl_kit.storage.fit_folder import write_fit
from tl_kit.tracking.trackers import Tracking

__all__ = ["Climb"]

_DROPPED = "earlier stages tell these classes apart better than its last layers: it trains before further heads"
_FAILURES = (TlKitError, MemoryError, torch.OutOfMemoryError)


class Climb:
    """The steps of one fit, from the first to the result. ``whole`` are all images; runs get those that are no test."""

    def __init__(
        self,
        journal: Journal,
        whole: Manifest,
        candidates: Sequence[Candidate],
        budget: Budget,
        reporter: Reporter,
        tracking: Tracking | None = None,
    ) -> None:
        self.tracking = tracking or Tracking()
        self.journal, self.config, self.budget, self.reporter = journal, journal.config, budget, reporter
        self.folder, self.whole, self.candidates = journal.folder, whole, candidates
        self.manifest = replace(whole, samples=tuple(s for s in whole.samples if s.split != "test"))
        self._tests = len(whole.split("test"))  # every member predicts them at the end
        self.options = StepOptions(self.config, candidates, whole.split("train"))
        self.records, self.timed = SeriesRecords(self.folder, RUNS), TimedReporter(reporter, budget)
        self.first_head = FirstHead(whole, budget, self.config.budget)
        self._sample: Step | None = None  # a smaller first head, where there is no time for a whole one
        self._least = 0.0  # seconds of a fit that has time for one
        self.best: Best | None = None
        self._exhausted = False  # true where more time would change nothing

    @property
    def entries(self) -> list[Entry]:
        """All steps so far."""
        return self.journal.entries

    def take_up(self, entries: Sequence[Entry]) -> None:
        """Finished steps count as they were; what failed, or had no time, is tried again."""
        found = None
        for entry in (each for each in entries if each.finished):
            trained = self.records.finished(entry.name, self.manifest, self.reporter)
            if trained is None:  # its record is damaged: it is trained again, and what followed with it
                break
            found = self._add(entry, trained) or found
        if found is not None:
            self._publish(*found)
        begun, step = self.journal.begun, self._interrupted()
        if begun and step and step.rung == "refit" and first_entry(step, self.entries) is None:
            shutil.rmtree(self.folder / RUNS / str(begun["name"]), ignore_errors=True)
            self.journal.begun = None  # its first run trains again before it

    def run(self) -> FitResult:
        """All steps that the time allows, and the result."""
        self.journal.write(self.budget.elapsed)
        self._describe()
        with self._leaving():
            stopped = self._steps()
            if self.best is None:
                raise self._nothing(stopped)
            return finish(
                self.journal,
                self.whole.without(self.manifest.exclusions[len(self.whole.exclusions) :]),
                self.best,
                stopped=stopped,
                budget=self.budget,
                reporter=self.reporter,
            )

    @cached_property
    def _views(self) -> tuple[str, ...]:
        """The crop modes to compare, where a centre crop hides much of the images; asked once a head is there."""
        first = next(entry.attempt.step.model for entry in self.entries if entry.finished)
        options = self.options.of(Step("head", first))
        return options.crop_choice.modes if uncropped(self.manifest, options) else ()

    def _steps(self) -> str:
        """Take one step after the other; returns in a sentence why there is no further one."""
        config = self.config
        prices = Prices(self.candidates, self.manifest, self.budget, config.budget, config.ladder, tests=self._tests)
        last = ""  # what there was no time for last
        while True:
            attempts = [entry.attempt for entry in self.entries]
            views = self._views if any(entry.finished for entry in self.entries) else ()
            early = self._early(prices)
            step = (
                self._interrupted()
                or self._sample
                or next_step(
                    attempts,
                    self.candidates,
                    views=views,
                    early=early,
                    chosen=chosen_steps(self.entries, self.best, self.manifest, share=config.ladder.refit_from),
                    seed=config.seed,
                    config=config.ladder,
                )
            )
            if isinstance(step, str):
                return last or step
            started = self.budget.elapsed
            try:
                admission = self._admission(step, prices)
            except OutOfTimeError:
                self._note(step, "no time", "the time is over")
                return f"the time was over before {named(step)}"
            except _FAILURES as error:
                self._note(step, "failed", reason_of(error))
                continue
            self._sample = None
            if admission.admitted:
                self._take(step, admission)
                continue
            self._sample, self._least = admission.smaller(step), admission.least
            needs = admission.why_not(step, self.budget.left)
            self._note(step, "no time", needs, self.budget.elapsed - started)  # what the trial of a few steps took
            if self.budget.left <= 0 or admission.hopeless:
                return last or needs
            if step.rung in ("member", "refit") or (step.rung == "part" and not early):
                last = f"{named(step)} {needs}"

    def _early(self, prices: Prices) -> bool:
        """True where the first network's last layers have dropped what matters; asked once, while there is time."""
        first = next((each for each in self.entries if each.finished and not each.attempt.step.images), None)
        heads_left = waiting([entry.attempt for entry in self.entries], self.candidates)
        if first is None or not first.attempt.allowed or not heads_left:
            return False
        if self.journal.dropped is not None or self._interrupted():
            return bool(self.journal.dropped)
        model, crop_mode = first.attempt.step.model, first.attempt.crop_mode
        timed = TimedReporter(SILENT, self.budget)
        try:
            options = self.options.of(Step("full", model, crop_mode=crop_mode))
            if not prices.may_train_early(options, self.entries):
                return False
            images = self.config.ladder.stage_images
            self.journal.dropped = earlier_stages_add(self.manifest, options, images=images, reporter=timed)
        except (OutOfTimeError, *_FAILURES):
            self.journal.dropped = False
        if self.journal.dropped:
            self.reporter.message(f"{model}: {_DROPPED}")
        return self.journal.dropped

    def _admission(self, step: Step, prices: Prices) -> Admission:
        if begun := self._at_work(step):  # as it was decided before the fit was interrupted
            decided = {name: begun[name] for name in ("epochs", "policy", "seconds")}
            return Admission(admitted=True, views=begun.get("views"), **decided)
        timed = TimedReporter(SILENT, self.budget)
        if step.rung == "refit":
            return prices.refit(self._refit(step), self.entries, timed)
        if step.rung == "head" and step != self._sample and not any(entry.finished for entry in self.entries):
            return self.first_head.admit(self._options(step), timed)
        return prices.admit(step, self._options(step), self.entries, timed)

    def _refit(self, step: Step) -> Refit:
        """The refit that the step is."""
        return refit_of(step, self.entries, self.options.of(step), manifest=self.manifest, folder=self.folder)

    def _take(self, step: Step, admission: Admission) -> None:
        """Run a step, and bring the best result up to date. A step that fails is noted, and the next one follows."""
        resumed = self._at_work(step) is not None
        name, started, options = self._begin(step, admission), self.budget.elapsed, self._options(step)
        about = "" if admission.seconds is None else f", about {admission.seconds:.0f} s"
        smaller = options.img_size != self.config.img_size
        about = (f" at {options.img_size} px, since the images are small" if smaller else "") + about
        self.reporter.message(f"step {int(name.partition('-')[0])}: {named(step)}{about}")
        folder = self.folder / RUNS / name
        try:
            trained = self._train(step, options, admission, name)
            first = first_entry(step, self.entries)  # a refit is as fast as its first run
            speed = first.speed if first else speed_of(folder, trained, self.config)
        except OutOfTimeError:
            self._drop(step, "out of time", admission.overrun(self.budget.elapsed - started), folder, started)
            return
        except (DataError, CheckpointError) as error:
            if not step.images:  # no other step would do better
                raise
            self._drop(step, "failed", reason_of(error), folder, started)
            return
        except _FAILURES as error:
            self._drop(step, "failed", reason_of(error), folder, started)
            return
        known = len(self.manifest.exclusions)
        self.records.save(name, trained, known)
        checkpoint, guard = load_checkpoint(folder, mapped=True), trained.result.guard
        attempt = Attempt(
            step=step,
            status="finished",
            crop_mode=checkpoint.preprocessing.crop_mode,
            kept=None if guard is None else guard["kept"],
        )
        entry = Entry(
            attempt=attempt,
            name=name,
            seconds=self.budget.elapsed - started,
            elapsed=self.budget.elapsed,
            estimate=None if resumed else admission.seconds,  # its seconds are those of this session alone
            policy=trained.result.policy,
            epochs=admission.epochs or 0,
            parameters=sum(parameter.numel() for parameter in checkpoint.model.parameters()),
            side=checkpoint.preprocessing.input_size[-1],
            speed=speed,
        )
        self.journal.begun = None
        if found := self._add(entry, trained):
            self._publish(*found)
        self.journal.write(self.budget.elapsed)
        track_step(self.tracking, self.entries[-1], number=len(self.entries))

    def _interrupted(self) -> Step | None:
        """The step that was at work when the fit was interrupted, if it has not ended since."""
        begun = self.journal.begun
        return None if begun is None else Step(**begun["step"])

    def _at_work(self, step: Step) -> dict[str, Any] | None:
        """The record of this step, if it was at work when the fit was interrupted."""
        return self.journal.begun if self._interrupted() == step else None

    def _options(self, step: Step) -> FinetuneConfig:
        """The step's options; of one that was interrupted, those that it began with."""
        begun = self._at_work(step)
        if begun is None:
            return self.options.of(step)
        return replace(self.options.of(step), img_size=begun.get("img_size", self.config.img_size))

    def _begin(self, step: Step, admission: Admission) -> str:
        """Record the step with all that was decided about it; returns the name of its run."""
        if begun := self._at_work(step):
            return str(begun["name"])
        numbers = [int(entry.name.partition("-")[0]) for entry in self.entries if entry.name]
        name = f"{max(numbers, default=0) + 1:02d}-{safe_name(step.model)}-{step.rung}"
        shutil.rmtree(self.folder / RUNS / name, ignore_errors=True)
        decided = {each: getattr(admission, each) for each in ("epochs", "policy", "seconds", "views")}
        decided["img_size"] = self.options.of(step).img_size
        self.journal.begun = {"step": asdict(step), "name": name, **decided}
        self.journal.write(self.budget.elapsed)
        return name

    def _train(self, step: Step, options: FinetuneConfig, admission: Admission, name: str) -> Trained:
        out = self.folder / RUNS / name
        options = replace(options, policy=admission.policy, epochs=admission.epochs, out=out)
        if admission.views is not None:
            options = replace(options, cache=replace(options.cache, default_views=admission.views))
        manifest, settled = self.manifest, None
        if step.rung == "refit":
            refit = self._refit(step)
            manifest, options, settled = refit_images(manifest), replace(refit.options, out=out), refit.settled
        elif step.rung == "sample":
            manifest = sampled(manifest, step.images, seed=options.split.split_seed)
        started = self.records.unfinished(f"{RUNS}/{name}", self.reporter)
        trained = finetune_on(
            manifest,
            options,
            reporter=self.timed,
            unfinished=started,
            content=self.journal.content,
            tracking=self.tracking.within(name),
            settled=settled,
        )
        if trained.result.status != "finished":
            raise KeyboardInterrupt
        return trained

    def _add(self, entry: Entry, trained: Trained) -> tuple[Pool, MemberChoice] | None:
        """Add a finished step, and choose the best result among all; None where none is within the limits.

        Validation cannot score a refit, which stands for its first run from now on.
        """
        self.manifest = self.manifest.without(trained.manifest.exclusions[len(self.manifest.exclusions) :])
        attempt = entry.attempt
        if attempt.step.rung != "refit":
            losses = image_losses(probabilities_of(trained), labels_of(trained.manifest.split("val")))
            most, speed = self.config.max_latency, entry.speed
            allowed = most is None or (speed is not None and speed.latency <= most)
            attempt = replace(attempt, losses=losses, allowed=allowed)
        entry = replace(entry, trained=trained)
        pool = pool_of_runs([*self.entries, entry])
        choice = choose_best(pool, self.config)
        if choice is not None:
            attempt = replace(attempt, together=image_losses(choice.whole.scored, pool.labels))
        self.entries.append(replace(entry, attempt=attempt))
        return None if choice is None else (pool, choice)

    def _publish(self, pool: Pool, choice: MemberChoice) -> None:
        """Write the best result, and let the folder stand for it; the one before goes once the new one is complete."""
        self.best = write_best(self.folder, pool, choice, self.manifest.classes)
        members = [pool.entries[member].speed for member in choice.members]
        rows = [speed.row for speed in members if speed is not None]
        # at the end, the members predict the test images, and the result is written
        self.budget.reserve = self.config.budget.finish + self.config.budget.margin * self._tests * sum(rows)
        self._describe()
        remove_others(self.folder, self.best)

    def _describe(self) -> None:
        """Let the fit's folder stand for the best result so far."""
        best = None if self.best is None else str(self.best.folder.relative_to(self.folder))
        write_fit(self.folder, {"status": "running", "best": best})

    def _note(self, step: Step, status: Status, note: str, seconds: float = 0.0, name: str = "") -> None:
        self.reporter.message(f"{named(step)}: {note}")
        attempt = Attempt(step=step, status=status, note=note)
        self.journal.entries.append(Entry(attempt=attempt, name=name, seconds=seconds, elapsed=self.budget.elapsed))
        self.journal.write(self.budget.elapsed)

    def _drop(self, step: Step, status: Status, note: str, folder: Path, started: float) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self.journal.begun = None
        self._note(step, status, note, self.budget.elapsed - started, folder.name)

    def _nothing(self, stopped: str) -> TlKitError:
        """The error of a fit without any result."""
        attempts = [entry.attempt for entry in self.entries]
        short = any(attempt.status in ("no time", "out of time") for attempt in attempts)
        if any(entry.finished for entry in self.entries):
            self._exhausted = not short and not waiting(attempts, self.candidates)
        return ConfigError(why_nothing(self.entries, self.config, stopped, least=self._least))

    @contextmanager
    def _leaving(self) -> Iterator[None]:
        """Say what remains of a fit that ends early; after an error without any result, no folder remains."""
        try:
            yield
        except KeyboardInterrupt:
            raise KeyboardInterrupt(self._left_over()) from None
        except StoppedError:
            self.reporter.message(self._left_over())
            raise
        except TlKitError:
            if self.best is None and not any(entry.finished for entry in self.entries):
                shutil.rmtree(self.folder, ignore_errors=True)
            else:
                self.reporter.message(self._left_over())
            raise
        finally:
            if self.folder.is_dir():
                self.journal.write(self.budget.elapsed)

    def _left_over(self) -> str:
        if self._exhausted:
            return f"the networks that were tried are in {self.folder / RUNS}; a fit with higher limits begins anew"
        goes_on = f"tlkit fit --resume {shlex.quote(str(self.folder))} goes on"
        if self.best is None:
            finished = any(entry.finished for entry in self.entries)
            kept = "no result is within the limits" if finished else "no step is finished"
            return f"{kept} yet; {goes_on}"
        return f"the best result so far is in {self.folder}; {goes_on}"

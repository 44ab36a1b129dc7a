"""The climb: one step of the ladder after the other, and after each a whole result on disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tl_kit.config import FinetuneConfig, FitConfig
from tl_kit.data.manifest import Manifest, labels_of
from tl_kit.errors import ConfigError, DataError, TlKitError, first_line
from tl_kit.finetuning.finetune import finetune_on
from tl_kit.finetuning.result import Trained
from tl_kit.fitting.best_result import Best, choose_best, pool_of_runs, write_best
from tl_kit.fitting.budget import Budget, OutOfTimeError, TimedReporter
from tl_kit.fitting.candidates import Candidate, find_candidates
from tl_kit.fitting.fit_result import FitResult, finish
from tl_kit.fitting.journal import RUNS, Entry, Journal
from tl_kit.fitting.ladder import Attempt, Status, Step, next_step
from tl_kit.fitting.prices import Admission, Prices
from tl_kit.fitting.speed import measure_speed
from tl_kit.metrics import image_losses, softmax
from tl_kit.planning.price import uncropped
from tl_kit.reporting import SILENT, Reporter
from tl_kit.series.records import SeriesRecords
from tl_kit.stopping import StoppedError
from tl_kit.storage.checkpoint import load_checkpoint
from tl_kit.storage.fit_folder import write_fit

__all__ = ["Climb", "options_of"]

_ANY_NETWORK = "tf_efficientnet_lite0"  # each step names its own


def options_of(config: FitConfig) -> FinetuneConfig:
    """The options that all runs share."""
    return FinetuneConfig(
        model=_ANY_NETWORK,
        data=config.data,
        img_size=config.img_size,
        seed=config.seed,
        split=config.split,
        allow=config.allow,
        strict=config.strict,
        decode=config.decode,
        cache=config.cache,
        runtime=config.runtime,
        store=config.store,
    )


class Climb:
    """The steps of one fit, from the first to the result. ``whole`` are all images; runs get those that are no test."""

    def __init__(self, journal: Journal, whole: Manifest, budget: Budget, reporter: Reporter) -> None:
        self.journal, self.config, self.budget, self.reporter = journal, journal.config, budget, reporter
        self.folder, self.whole = journal.folder, whole
        self.manifest = replace(whole, samples=tuple(s for s in whole.samples if s.split != "test"))
        self.records = SeriesRecords(self.folder, RUNS)
        self.timed = TimedReporter(reporter, budget)
        self.best: Best | None = None

    @property
    def entries(self) -> list[Entry]:
        """All steps so far."""
        return self.journal.entries

    def take_up(self, entries: Iterator[Entry]) -> None:
        """Finished and failed steps count as they were; what there was no time for may have some now."""
        for entry in entries:
            if entry.attempt.status == "failed":
                self.entries.append(entry)
            elif entry.finished:
                trained = self.records.finished(entry.name, self.manifest, self.reporter)
                if trained is None:  # its record is damaged: it is trained again, and what followed with it
                    return
                self._add(replace(entry, trained=trained), trained)

    def run(self) -> FitResult:
        """All steps that the time allows, and the result."""
        most = self.config.max_params
        self.journal.write(self.budget.elapsed)
        self._describe("running")
        candidates = find_candidates(
            self.config.models,
            img_size=self.config.img_size,
            classes=len(self.manifest.classes),
            max_params=None if most is None else float(most),
            left=self.budget.left,
            config=self.config.budget,
            reporter=self.reporter,
        )
        with self._leaving():
            stopped = self._steps(candidates, self._views(candidates))
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

    def _views(self, candidates: Sequence[Candidate]) -> tuple[str, ...]:
        """The crop modes to compare, where a centre crop hides much of the images."""
        options = replace(options_of(self.config), model=candidates[0].name)
        return options.crop_choice.modes if uncropped(self.manifest, options) else ()

    def _steps(self, candidates: Sequence[Candidate], views: Sequence[str]) -> str:
        """Take one step after the other; returns in a sentence why there is no further one."""
        config = self.config
        prices = Prices(candidates, self.manifest, self.budget, config.budget, config.ladder)
        while True:
            attempts = [entry.attempt for entry in self.entries]
            step = next_step(attempts, candidates, views=views, seed=config.seed, config=config.ladder)
            if isinstance(step, str):
                return step
            try:
                admission = self._admission(step, prices)
            except OutOfTimeError:
                return f"the time was over before {_named(step)}"
            except TlKitError as error:
                self._note(step, "failed", first_line(error))
                continue
            if admission.admitted:
                self._take(step, admission)
                continue
            needs = f"needs about {admission.needed:.0f} s, {max(0.0, self.budget.left):.0f} s are left"
            self._note(step, "no time", needs)
            if step.rung in ("full", "member"):
                return f"{_named(step)} {needs}"

    def _admission(self, step: Step, prices: Prices) -> Admission:
        begun = self.journal.begun
        if begun is not None and begun["step"] == asdict(step):  # as it was decided before the fit was interrupted
            return Admission(admitted=True, epochs=begun["epochs"], policy=begun["policy"], seconds=begun["seconds"])
        options = replace(options_of(self.config), model=step.model, crop_mode=step.crop_mode or "auto", seed=step.seed)
        return prices.admit(step, options, self.entries, TimedReporter(SILENT, self.budget))

    def _take(self, step: Step, admission: Admission) -> None:
        """Run a step, and bring the best result up to date. A step that fails is noted, and the next one follows."""
        name, started = self._begin(step, admission), self.budget.elapsed
        about = "" if admission.seconds is None else f", about {admission.seconds:.0f} s"
        self.reporter.message(f"step {len(self.entries) + 1}: {_named(step)}{about}")
        folder = self.folder / RUNS / name
        try:
            trained = self._train(step, admission, name)
            images = [sample.path for sample in trained.manifest.split("val")[: self.config.budget.timed]]
            speed = measure_speed(folder, images, self.config.runtime)
        except OutOfTimeError:
            self._drop(step, "out of time", "it took longer than its estimate", folder, started)
            return
        except DataError:
            raise
        except (TlKitError, MemoryError, torch.OutOfMemoryError) as error:
            self._drop(step, "failed", first_line(error), folder, started)
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
            estimate=admission.seconds,
            policy=trained.result.policy,
            epochs=admission.epochs or 0,
            parameters=sum(parameter.numel() for parameter in checkpoint.model.parameters()),
            trained=trained,
            speed=speed,
        )
        self.journal.begun = None
        self._add(entry, trained)
        self.journal.write(self.budget.elapsed)

    def _begin(self, step: Step, admission: Admission) -> str:
        """Record the step with all that was decided about it; returns the name of its run."""
        begun = self.journal.begun
        if begun is not None and begun["step"] == asdict(step):
            return str(begun["name"])
        numbers = [int(entry.name[:2]) for entry in self.entries if entry.name]
        safe = "".join(c if c.isalnum() or c in "._-" else "-" for c in step.model)
        name = f"{max(numbers, default=0) + 1:02d}-{safe}-{step.rung}"
        shutil.rmtree(self.folder / RUNS / name, ignore_errors=True)
        decided = {"epochs": admission.epochs, "policy": admission.policy, "seconds": admission.seconds}
        self.journal.begun = {"step": asdict(step), "name": name, **decided}
        self.journal.write(self.budget.elapsed)
        return name

    def _train(self, step: Step, admission: Admission, name: str) -> Trained:
        options = replace(
            options_of(self.config),
            model=step.model,
            policy=admission.policy,
            epochs=admission.epochs,
            seed=step.seed,
            crop_mode=step.crop_mode or "auto",
            out=self.folder / RUNS / name,
        )
        started = self.records.unfinished(f"{RUNS}/{name}", self.reporter)
        trained = finetune_on(
            self.manifest, options, reporter=self.timed, unfinished=started, content=self.journal.content
        )
        if trained.result.status != "finished":
            raise KeyboardInterrupt
        return trained

    def _add(self, entry: Entry, trained: Trained) -> None:
        """Add a finished step, choose the best result among all, and let the folder stand for it."""
        self.manifest = self.manifest.without(trained.manifest.exclusions[len(self.manifest.exclusions) :])
        losses = image_losses(*_outputs(trained))
        known = [*self.entries, replace(entry, attempt=replace(entry.attempt, losses=losses))]
        pool = pool_of_runs(known)
        choice = choose_best(pool, self.config)
        if choice is None:
            self.journal.entries = known
            return
        chosen = tuple(pool.entries[member].name for member in choice.members)
        together = image_losses(choice.whole.scored, pool.labels)
        known[-1] = replace(known[-1], chosen=chosen, attempt=replace(known[-1].attempt, together=together))
        self.journal.entries = known
        before = self.best
        self.best = write_best(self.folder, pool, choice, len(known), self.manifest.classes)
        self.budget.reserve = self._reserve(
            pool_speeds=[e.speed.row for e in pool.entries if e.speed and e.name in chosen]
        )
        self._describe("running")
        if before is not None and before.folder != self.best.folder and before.folder.parent == self.folder:
            shutil.rmtree(before.folder, ignore_errors=True)

    def _reserve(self, *, pool_speeds: Sequence[float]) -> float:
        """Seconds for the end: the members predict the test images, and the result is written."""
        tests = len(self.whole.split("test"))
        return self.config.budget.finish + self.config.budget.margin * tests * sum(pool_speeds)

    def _describe(self, status: str) -> None:
        best = None if self.best is None else str(self.best.folder.relative_to(self.folder))
        write_fit(self.folder, {"status": status, "best": best})

    def _note(self, step: Step, status: Status, note: str, seconds: float = 0.0, name: str = "") -> None:
        self.reporter.message(f"{_named(step)}: {note}")
        attempt = Attempt(step=step, status=status, note=note)
        self.journal.entries.append(Entry(attempt=attempt, name=name, seconds=seconds, elapsed=self.budget.elapsed))
        self.journal.write(self.budget.elapsed)

    def _drop(self, step: Step, status: Status, note: str, folder: Path, started: float) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self.journal.begun = None
        self._note(step, status, note, self.budget.elapsed - started, folder.name)

    def _nothing(self, stopped: str) -> TlKitError:
        """The error of a fit without any result."""
        if any(entry.finished for entry in self.entries):
            return ConfigError("no network is within --max-latency and --max-params; raise them")
        late = next((entry for entry in self.entries if entry.attempt.status == "out of time"), None)
        if late is not None:
            return ConfigError(f"--time {self.config.time:g}: is too short for a first head; give more")
        failed = next((entry.attempt for entry in self.entries if entry.attempt.status == "failed"), None)
        return ConfigError(stopped if failed is None else f"{failed.step.model}: {failed.note}")

    @contextmanager
    def _leaving(self) -> Iterator[None]:
        """Say what remains of a fit that ends early."""
        try:
            yield
        except KeyboardInterrupt:
            raise KeyboardInterrupt(self._left_over()) from None
        except StoppedError:
            self.reporter.message(self._left_over())
            raise
        finally:
            self.journal.write(self.budget.elapsed)

    def _left_over(self) -> str:
        goes_on = f"tlkit fit --resume {self.folder} goes on"
        if self.best is None:
            return f"no step is finished yet; {goes_on}"
        return f"the best result so far is in {self.folder}; {goes_on}"


def _outputs(trained: Trained) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The run's probabilities of the validation images (n, k), and their labels (n,)."""
    return softmax(trained.logits["val"].numpy().astype(np.float64)), labels_of(trained.manifest.split("val"))


def _named(step: Step) -> str:
    """The step in words."""
    how = {
        "head": f"head of {step.model}",
        "view": f"head of {step.model}, crop mode {step.crop_mode}",
        "short": f"short training of {step.model}",
        "full": f"training of {step.model}",
        "member": f"one more training of {step.model}, seed {step.seed}",
    }
    return how[step.rung]

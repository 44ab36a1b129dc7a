"""A run's callbacks: averages, phases, best weights, extra checkpoints, logs, trackers, rollback, saved states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

from torch import Tensor

from tl_kit.finetuning.batch_sources import Source, open_source
from tl_kit.finetuning.build_task import compile_now, groups_of, set_source
from tl_kit.finetuning.kept_weights import BestWeights, ExtraCheckpoints
from tl_kit.finetuning.result import FinetuneResult
from tl_kit.finetuning.run import Run
from tl_kit.finetuning.saved_state import StateSaver, changing_names
from tl_kit.finetuning.settings import Settings
from tl_kit.finetuning.trunk_reuse import open_reuse
from tl_kit.freezing.adapters import Adapters
from tl_kit.freezing.audit import Audit, frozen_tensors, run_audit
from tl_kit.freezing.train_mode import apply_policy, set_train_mode
from tl_kit.optimization.optimizers import add_groups
from tl_kit.options_file import named_values
from tl_kit.reports.learning_curves import CURVES
from tl_kit.storage.metrics_log import Journal
from tl_kit.tracking.tables import final_scalars, score_table
from tl_kit.tracking.trackers import Tracking
from tl_kit.training.averaging import WeightAverage
from tl_kit.training.rollback import Rollback
from tl_kit.training.stateful import OptimizerState, RandomState, Stateful, TensorState
from tl_kit.training.task import Callback, FitResult, Task

__all__ = ["Followed", "Phases", "begin_tracking", "follow", "phase_length", "track_options", "track_result"]


def phase_length(run: Run, epoch: int, epochs: int) -> int:
    """Number of epochs of the phase that begins in ``epoch``; the run has ``epochs`` in all."""
    if not run.policy.grows:
        return epochs - epoch
    names = run.trainable(epoch)
    return len(list(takewhile(lambda later: run.trainable(later) == names, range(epoch, epochs))))


class Phases(Callback):
    """Phases: the layers that train in each epoch; gradual unfreezing adds some, with one optimizer, an audit a phase.

    Made when the first phase's policy is applied and its train mode set.

    ``source`` is that of the phase under way; ``ended`` holds the audits of the phases before it.
    """

    def __init__(self, run: Run, order: list[str], settings: Settings, source: Source) -> None:
        self.run, self.order, self.settings, self.source = run, order, settings, source
        self.names = run.trainable(0)
        self.before = frozen_tensors(run.model)
        self.ended: tuple[tuple[str, Audit], ...] = ()
        self.began = 0

    @property
    def several(self) -> bool:
        """True where there is more than one."""
        return phase_length(self.run, 0, self.settings.epochs) < self.settings.epochs

    def audit(self) -> Audit:
        """The audit of the current phase. Raises AuditError if a frozen tensor has changed."""
        return run_audit(self.run.model, self.before)

    def on_phase(self, task: Task, epoch: int) -> None:
        if self.run.trainable(epoch) != self.names:
            self._begin(task, epoch)

    def _begin(self, task: Task, epoch: int) -> None:
        """Put the task into the phase that begins here; the optimizer keeps its state of what trained before."""
        run, settings = self.run, self.settings
        self.ended += ((f"epochs {self.began + 1} to {epoch}", self.audit()),)
        names = run.trainable(epoch)
        new, self.names, self.began = names - self.names, names, epoch
        apply_policy(run.model, self.names)
        length = phase_length(run, epoch, settings.epochs)
        self.source, _ = open_source(run, open_reuse(run, self.order), epochs=length)
        set_train_mode(run.model, self.order, batchnorm=settings.batchnorm)
        self.before = frozen_tensors(run.model)
        add_groups(task.optimizer, groups_of(run, settings, new))
        run.reporter.message(f"epoch {epoch + 1}: {len(new)} more tensors train, {len(self.before)} stay frozen")
        module = compile_now(run, self.source.module, epochs=length, optimizer=settings.optimizer)
        task.model = run.accelerator.prepare(module)
        task.microbatch.trials = 0
        set_source(task, run, self.source)


class Merging(Callback):
    """Keeps the model's own weights what they are with the adapters merged: after every step, and once taken up."""

    def __init__(self, adapters: Adapters) -> None:
        self.adapters = adapters

    def on_step(self, step: int) -> None:
        self.adapters.merge()

    def state(self) -> dict[str, Tensor]:
        return self.adapters.state()

    def load_state(self, state: Any) -> None:
        self.adapters.load_state(state)


class MetricsLog(Callback):
    """Appends each epoch's row to ``metrics.jsonl``."""

    def __init__(self, run: Run) -> None:
        self.journal = Journal(run.folder if run.writes else None)

    def on_epoch(self, result: FitResult) -> None:
        self.journal.write(**result.history[-1])


class TrackedEpochs(Callback):
    """Sends each epoch's figures to the run's experiment trackers."""

    def __init__(self, tracking: Tracking) -> None:
        self.tracking = tracking

    def on_epoch(self, result: FitResult) -> None:
        self.tracking.epoch(result.history[-1])


def begin_tracking(run: Run, given: Tracking | None) -> Run:
    """Open the run's experiment trackers until its end; a run that is part of larger work reports to ``given``."""
    tracking = given or Tracking(run.reporter)
    if given is None and run.writes:
        run.cleanup.callback(tracking.close)
        saved = {} if run.resumed is None else run.resumed.saved("result")
        tracking.begin(run.config.tracking, run.folder, first_step=int(saved.get("epochs", 0)) + 1)
    return replace(run, tracking=tracking)


def track_options(run: Run, settings: Mapping[str, object]) -> None:
    """Send the options to the trackers: the configuration, and the values that the run chose for ``auto``."""
    settled = {
        "policy": str(run.policy),
        "crop_mode": run.preprocessing.crop_mode,
        "precision": run.runtime.precision,
        "classes": len(run.manifest.classes),
        **{f"images_{split}": len(run.manifest.split(split)) for split in ("train", "val", "test")},
    }
    resolved = {name: value for name, value in settings.items() if name not in ("regularization", "swa")}  # as given
    run.tracking.configure({**named_values(run.config), **resolved, **settled})


def track_result(run: Run, result: FinetuneResult) -> None:
    """Send final scores with their kinds, and learning curves, to the run's own trackers; a fit sends its steps."""
    if not run.tracking.takes_pictures:
        return
    scores = {"val": result.val, "test": result.test}
    run.tracking.scalars(final_scalars(scores, result.kinds), step=result.epochs)
    run.tracking.table(score_table(scores, result.kinds), step=result.epochs)
    run.tracking.pictures({"learning curves": run.folder / CURVES}, step=result.epochs)


@dataclass(frozen=True, kw_only=True)
class Followed:
    """A task with its callbacks, and those of them that are asked afterwards. ``compiled``: by torch.compile."""

    task: Task
    best: BestWeights
    extra: ExtraCheckpoints
    rollback: Rollback | None
    compiled: bool


def follow(run: Run, task: Task, settings: Settings, phases: Phases) -> Followed:
    """Give the task its callbacks, and make model and optimizer ready: compiled, and distributed over processes.

    The names of the parts are those that saved states have.
    """
    names, module = changing_names(run), task.model
    decay = run.config.regularization.ema
    average = None if decay is None else WeightAverage(run.model, decay=decay, names=names)
    if average is not None:
        task.averaged = average.in_place
    compiled = compile_now(run, module, epochs=settings.epochs, optimizer=settings.optimizer)
    task.model, task.optimizer = run.accelerator.prepare(compiled, task.optimizer)
    best, extra = BestWeights(run), ExtraCheckpoints(run, settings, task.averaged)
    parts: dict[str, Stateful] = {
        "model": TensorState(run.model, names),
        "optimizer": OptimizerState(task.optimizer),
        "best": best,
        "random": RandomState(run.runtime.device),
        "images of a pass": task.microbatch,
    }
    rollback = _rollback(run, task, parts)
    if rollback is not None:
        task.schedule = rollback.scaled(task.schedule)
    adapters = phases.source.adapters
    merging = None if adapters is None else Merging(adapters)
    optional = {"adapters": merging, "average": average, "along": extra if extra.wanted else None, "rollback": rollback}
    parts |= {name: callback for name, callback in optional.items() if callback is not None}
    track_options(run, settings.to_dict())
    log = (MetricsLog(run), TrackedEpochs(run.tracking))
    last = (*log, rollback, StateSaver(run, settings, parts))  # a state that is saved holds the good one
    wanted = (phases if phases.several else None, merging, average, extra, best, *last)
    task.parts, task.callbacks = parts, tuple(callback for callback in wanted if callback is not None)
    return Followed(task=task, best=best, extra=extra, rollback=rollback, compiled=compiled is not module)


def _rollback(run: Run, task: Task, parts: Mapping[str, Stateful]) -> Rollback | None:
    """The rollback to a good state, for a run that asks for it, or trains in a precision that may be too low.

    It may let the task go on in fp32.
    """
    low = run.runtime.train_precision == "bf16"
    if run.config.on_nan != "rollback" and not low:
        return None
    full = replace(run.runtime, train_precision="fp32").training

    def widen() -> bool:
        before, task.precision = task.precision, full
        return low and before is not full

    return Rollback(parts, halve=run.config.on_nan == "rollback", widen=widen, config=run.config.rollback)

"""Policies under which more trains as the epochs go: phases, each with its audit, and one optimizer through all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import takewhile

from tl_kit.finetuning.batch_sources import Source, agreed_scores, open_source
from tl_kit.finetuning.build_task import groups_of, noted
from tl_kit.finetuning.compilation import compile_now
from tl_kit.finetuning.run import Run
from tl_kit.finetuning.settings import Settings
from tl_kit.finetuning.trunk_reuse import open_reuse
from tl_kit.freezing.audit import Audit, frozen_tensors, run_audit
from tl_kit.freezing.train_mode import apply_policy, set_train_mode
from tl_kit.optimization.optimizers import add_groups
from tl_kit.training.task import Task

__all__ = ["Unfreezing"]


class Unfreezing:
    """What trains in each epoch. Made when the first phase's policy is applied and its train mode set.

    ``source`` is that of the phase under way; ``ended`` holds the audits of the phases before it.
    """

    def __init__(self, run: Run, order: list[str]) -> None:
        self.run = run
        self.order = order
        self.names = run.trainable(0)
        self.before = frozen_tensors(run.model)
        self.ended: tuple[tuple[str, Audit], ...] = ()
        self.began = 0
        self.source: Source

    def length(self, epoch: int, epochs: int) -> int:
        """Epochs of the phase that begins in ``epoch``."""
        if not self.run.policy.grows:
            return epochs - epoch
        names = self.run.trainable(epoch)
        return len(list(takewhile(lambda later: self.run.trainable(later) == names, range(epoch, epochs))))

    def audit(self) -> Audit:
        """That of the phase under way. Raises AuditError if anything frozen has changed."""
        return run_audit(self.run.model, self.before)

    def follow(self, first: Task, settings: Settings, source: Source) -> Task:
        """The first task, and after it one for each phase that the policy has."""
        self.source = source
        if self.length(0, settings.epochs) == settings.epochs:
            return first
        return replace(first, phase=self._phase(first, settings))

    def _phase(self, first: Task, settings: Settings) -> Callable[[int], Task]:
        current = first

        def phase(epoch: int) -> Task:
            nonlocal current
            if self.run.trainable(epoch) != self.names:
                current = self._next(current, settings, epoch)
            return current

        return phase

    def _next(self, task: Task, settings: Settings, epoch: int) -> Task:
        """The task of the phase that begins in ``epoch``; the optimizer keeps its state of what trained before."""
        run = self.run
        self.ended += ((f"epochs {self.began + 1} to {epoch}", self.audit()),)
        new = run.trainable(epoch) - self.names
        self.names, self.began = run.trainable(epoch), epoch
        apply_policy(run.model, self.names)
        length = self.length(epoch, settings.epochs)
        self.source, _ = open_source(run, open_reuse(run, self.order), epochs=length)
        set_train_mode(run.model, self.order, batchnorm=settings.batchnorm)
        self.before = frozen_tensors(run.model)
        add_groups(task.optimizer, groups_of(run, settings, new))
        run.reporter.message(f"epoch {epoch + 1}: {len(new)} more tensors train, {len(self.before)} stay frozen")
        source = self.source
        module = compile_now(run, source.module, epochs=length, optimizer=settings.optimizer)
        return replace(
            task,
            model=run.accelerator.prepare(module),
            batch=noted(run, source),
            evaluate=lambda: agreed_scores(run, source),
        )

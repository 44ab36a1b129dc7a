"""Policies trained by gradient descent: the loop of ``training.loop`` put to work on a run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from tl_kit.errors import TrainingError
from tl_kit.finetuning.batch_sources import Source, agreed_scores, open_source
from tl_kit.finetuning.build_task import build_task, compile_errors
from tl_kit.finetuning.callbacks import Followed, Phases, follow, phase_length
from tl_kit.finetuning.closed_form import tell_refit
from tl_kit.finetuning.head_guard import (
    FittedHead,
    compare_with_head,
    first_weights,
    take_final_head,
    take_settled,
)
from tl_kit.finetuning.losses import check_drop_path, drop_connect
from tl_kit.finetuning.result import Guarded, Outcome
from tl_kit.finetuning.run import Run
from tl_kit.finetuning.saved_state import saved_settings, take_up
from tl_kit.finetuning.settings import Settings, resolve
from tl_kit.finetuning.trunk_reuse import Reuse
from tl_kit.freezing.train_mode import set_train_mode
from tl_kit.machine.process_group import first_answer
from tl_kit.machine.random_state import restored_random_state
from tl_kit.training.lr_range_test import range_test
from tl_kit.training.rollback import fit_again
from tl_kit.training.task import FitResult, Task
from tl_kit.zoo.heads import classifier_names, in_modules

__all__ = ["fit_by_gradient"]


def fit_by_gradient(run: Run, order: list[str], reuse: Reuse | None, *, head: FittedHead | None = None) -> Outcome:
    """Train under the run's policy; the model ends with the saved weights: those of its best epoch, or of its last.

    ``order`` is the forward order of the model's modules. The policy has been applied, the model placed. Where the head
    was fitted first, that state is epoch 0, and is kept if no epoch is better. With a ``head`` epoch 0 does not
    compete: the best epoch is compared with that head, and the model ends with the weights that are kept of them.
    """
    _start_head_at_zero(run)
    settings = replace(resolve(run), **saved_settings(run))
    set_train_mode(run.model, order, batchnorm=settings.batchnorm)
    if run.config.select == "auto" and settings.select != "accuracy" and settings.keep_epoch == "best":
        run.reporter.message(f"the best epoch is that of the highest {settings.select.replace('_', ' ')} in validation")
    check_drop_path(run, order)
    drop_connect(run, order)
    source, views = open_source(run, reuse, epochs=phase_length(run, 0, settings.epochs))
    with run.clock("train"), restored_random_state(run.runtime.device), compile_errors():
        torch.manual_seed(run.config.seed)
        if run.config.lr == "auto" and not saved_settings(run):
            settings = _choose_rate(run, order, settings, source)
        phases = Phases(run, order, settings, source)
        fit = follow(run, build_task(run, order, settings, source), settings, phases)
        start = take_up(run, fit.task) or _first_state(run, source, fit, guarded=head is not None)
        result, error = _fit(run, fit, start)
        status = "failed" if error else "interrupted" if result.interrupted else "finished"
        swa = fit.extra.judge(fit.task, phases.source, result, fit.best) if status == "finished" else None
    if not fit.best.best:
        raise KeyboardInterrupt
    with run.clock("evaluate"):
        waypoints = fit.extra.score(phases.source)
    fit.best.restore()
    with run.clock("evaluate"):
        guard = _keep(run, head, phases.source, settings, task=fit.task, epoch=result.best_epoch)
    audit = phases.audit()
    logits, held_out = _outputs(run, phases.source, head, guard, finished=status == "finished")
    return Outcome(
        epochs=result.epochs,
        best_epoch=result.best_epoch,
        trainable_parameters=_trained(run, phases.source),
        logits=logits,
        audit=audit,
        chosen_by_val=(
            *_chosen_by_val(run, settings, result, compared=swa is not None, failed=error is not None),
            *(() if guard is None else ("head", "temperature")),
        ),
        phases=phases.ended,
        status=status,
        settings={**settings.to_dict(), "views": views, "compiled": fit.compiled, **_rollbacks(fit), **_settled(run)},
        error=error,
        waypoints=waypoints,
        swa=swa,
        guard=guard,
        held_out_head=held_out,
    )


def _keep(
    run: Run, head: FittedHead | None, source: Source, settings: Settings, *, task: Task, epoch: int
) -> Guarded | None:
    """Leave the model with what is kept of head and trained network. None where nothing was compared."""
    if run.settled is not None:
        take_settled(run, run.settled, head, source, task=task, epoch=epoch)
        return None
    if head is None:
        return None
    step = epoch * math.ceil(len(run.manifest.split("train")) / settings.batch_size)
    return compare_with_head(run, head, source, task=task, select=settings.select, epoch=epoch, step=step)


def _outputs(
    run: Run, source: Source, head: FittedHead | None, guard: Guarded | None, *, finished: bool
) -> tuple[dict[str, Tensor], Mapping[str, Tensor] | None]:
    """Outputs on val; on test, by what was fitted to val too; and the tensors that this has replaced.

    A run that goes on chooses by val: nothing of it is fitted to val yet.
    """
    with run.clock("evaluate"):
        logits = {"val": source.logits("val")}
    held_out: Mapping[str, Tensor] | None = None
    if finished and run.settled is not None:
        held_out = first_weights(run, run.settled)
    elif finished and head is not None and guard is not None:
        held_out = take_final_head(run, head, alpha=guard.alpha, temperature=guard.temperature)
        if held_out is not None:
            tell_refit(run)
    with run.clock("evaluate"):
        logits["test"] = source.logits("test")
    return logits, held_out


def _trained(run: Run, source: Source) -> int:
    """The number of parameters that train: adapters are counted themselves, and not what they are merged into."""
    module = run.model if source.adapters is None else source.adapters.module
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def _fit(run: Run, fit: Followed, start: FitResult) -> tuple[FitResult, str | None]:
    """The loop's result; an error after the first kept state ends the run, and is reported at its end."""
    try:
        return fit_again(fit.task, run.accelerator, rollback=fit.rollback, start=start, reporter=run.reporter), None
    except TrainingError as failure:
        if not fit.best.best:
            raise
        return fit.best.result(), str(failure)


def _chosen_by_val(run: Run, settings: Settings, result: FitResult, *, compared: bool, failed: bool) -> tuple[str, ...]:
    """As Outcome has it; ``compared``: whether averaged weights were, with the best epoch.

    Of a single epoch there is none to choose, unless the head's fit before it is another; nor where the last one is
    kept. A run that ``failed`` says how many epochs it kept, not how many it saw.
    """
    if not run.manifest.split("val"):
        return ()
    states = result.epochs + run.policy.fits_head_first
    kept_last = settings.keep_epoch == "last" and result.epochs == settings.epochs == result.best_epoch
    found = {
        "epoch": (states > 1 and not kept_last) or failed,
        "average": compared,
        "rate": settings.schedule == "plateau" and result.epochs > 1,
    }
    return tuple(name for name, chosen in found.items() if chosen)


def _rollbacks(fit: Followed) -> dict[str, object]:
    """The record's entry of the run's rollbacks to a good state."""
    return {"rollbacks": fit.rollback.events} if fit.rollback is not None and fit.rollback.events else {}


def _settled(run: Run) -> dict[str, object]:
    """The record's entry of what was kept of head and trained network, where an earlier run had settled it."""
    settled = run.settled
    return {} if settled is None else {"settled": {"alpha": settled.alpha, "temperature": settled.temperature}}


def _first_state(run: Run, source: Source, fit: Followed, *, guarded: bool) -> FitResult:
    """Keep the state before the first epoch where the head has been fitted.

    A guarded run compares its best epoch with its head at the end, so the start does not compete.
    """
    if not run.policy.fits_head_first:
        return FitResult()
    scores = None if guarded else agreed_scores(run, source)
    fit.best.keep(0)
    return FitResult(best=scores)


def _start_head_at_zero(run: Run) -> None:
    """A new head on pretrained layers starts at zero (as in BiT, Kolesnikov et al. 2020), unless it is fitted first.

    The gradient of a random head would change the layers below before the head means anything, and where none of them
    trains, few images take long to forget it: timm draws EfficientNet's classifier so large that the first loss is 10.
    """
    if run.policy.fits_head_first or not run.weights.loaded:
        return
    heads = classifier_names(run.model)
    with torch.no_grad():
        for name, parameter in run.model.named_parameters():
            if in_modules(name, heads):
                parameter.zero_()


def _choose_rate(run: Run, order: list[str], settings: Settings, source: Source) -> Settings:
    """The settings at the rate of a range test, the first process's in all of them. Nothing else is changed by it."""
    config = run.config.range_test
    run.reporter.start("range test", config.steps)
    trial = build_task(run, order, settings, source)
    found = range_test(trial, run.accelerator, base=settings.lr, config=config, on_step=run.reporter.advance)
    suggestion = first_answer(found.suggestion)
    run.reporter.message(
        f"learning rate {suggestion:.2g}: where the loss fell fastest in {len(found.rates)} steps "
        f"from {found.rates[0]:.1g} to {found.rates[-1]:.1g}"
    )
    return settings.with_lr(suggestion)

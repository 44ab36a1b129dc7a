"""``finetune``: from a folder of images and a timm name to a checkpoint."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from tl_kit import metrics
from tl_kit.config import FinetuneConfig
from tl_kit.data.exclusions import left_out_dict
from tl_kit.data.manifest import Manifest, labels_of
from tl_kit.errors import TrainingError
from tl_kit.finetuning.callbacks import begin_tracking, track_options, track_result
from tl_kit.finetuning.choices.crop_mode import settle_crop_mode
from tl_kit.finetuning.choices.mirror_images import settle_mirror_images
from tl_kit.finetuning.choices.policy_choice import facts_of, settle_policy
from tl_kit.finetuning.closed_form import fit_closed_form, fit_head_first, wants_closed_form
from tl_kit.finetuning.gradient import fit_by_gradient
from tl_kit.finetuning.head_guard import FittedHead, fit_guard, is_guarded
from tl_kit.finetuning.preparation import prepare
from tl_kit.finetuning.result import FinetuneResult, Outcome, Snapshot, Trained, Waypoint
from tl_kit.finetuning.run import Run, Settled, apply_trainable
from tl_kit.finetuning.saved_state import check_unchanged, facts
from tl_kit.finetuning.settings import resolve
from tl_kit.finetuning.teacher import teach
from tl_kit.finetuning.trunk_reuse import open_reuse
from tl_kit.freezing.policies import is_auto, parse_policy
from tl_kit.inference.kept_outputs import keep_outputs, outputs_key
from tl_kit.machine.ambient import undisturbed
from tl_kit.plain_values import takes_plain_values
from tl_kit.reporting import SILENT, Reporter
from tl_kit.reports.learning_curves import draw_curves
from tl_kit.stopping import TERMINATED, StoppedError
from tl_kit.storage.checkpoint import (
    digest_prefix,
    is_checkpoint,
    save_config,
    save_held_out_head,
    save_meta,
    save_weights,
)
from tl_kit.storage.config_json import to_json
from tl_kit.storage.run_options import save_options
from tl_kit.storage.saved_states import StateFolder
from tl_kit.storage.seen_images import kinds_of, uses_in
from tl_kit.storage.unfinished import UNFINISHED, Unfinished
from tl_kit.tracking.trackers import Tracking

__all__ = ["finetune", "finetune_on"]


@undisturbed()
@takes_plain_values
def finetune(config: FinetuneConfig, *, reporter: Reporter = SILENT) -> FinetuneResult:
    """Fine-tune one model and write its checkpoint folder.

    Raises a subclass of TlKitError for every mistake in the data, the options or the weights. Ctrl-C after the first
    epoch ends the run with the best checkpoint and ``status="interrupted"``; before it, KeyboardInterrupt passes on and
    no folder is left behind. Whatever else ends a run early leaves its last saved state, where there is one:
    ``resume`` goes on from there.
    """
    return finetune_on(None, config, reporter=reporter).result


def finetune_on(
    manifest: Manifest | None,
    config: FinetuneConfig,
    *,
    reporter: Reporter = SILENT,
    unfinished: Unfinished | None = None,
    content: str | None = None,
    tracking: Tracking | None = None,
    settled: Settled | None = None,
) -> Trained:
    """:func:`finetune` on images that have been scanned and split already, instead of a scan of ``config.data``.

    ``unfinished``: a run of the same configuration, which is taken up again. ``content``: the content hash of all
    images, where the manifest's training images are a sample of them. ``tracking``: the trackers of the work that this
    run is part of, instead of its own. ``settled``: what to keep of head and trained network; the manifest then has no
    validation images.
    """
    run = prepare(config, reporter, manifest=manifest, unfinished=unfinished, content=content, settled=settled)
    with _leaving(run, alone=manifest is None):
        run = begin_tracking(run, tracking)
        own = run.manifest.content_hash()
        if run.resumed is not None:
            check_unchanged(run, run.resumed, own)
        _save_meta(run, status="running", resume=facts(run, own, policy=None))
        if manifest is None and run.writes:
            save_options(run.folder, config, command="finetune")
        run = teach(run)
        settle_crop_mode(run)
        run, _ = settle_mirror_images(_settle(run))
        resumable = facts(run, own, policy=str(run.policy))
        if run.writes:
            save_config(run.folder, run.model, run.manifest.classes, run.preprocessing)
        _save_meta(run, status="running", resume=resumable)
        outcome = _held_out(run, _train(run, alone=manifest is None))
        return Trained(result=_finish(run, outcome, resumable), manifest=run.manifest, logits=outcome.logits)


def _settle(run: Run) -> Run:
    """The run under its policy. ``--policy auto`` is settled once: a run that is taken up again keeps its policy."""
    if not is_auto(run.config.policy):
        return run
    settled = None if run.resumed is None else run.resumed.settled("policy")
    if settled is not None:
        return replace(run, policy=parse_policy(settled))
    return settle_policy(run, facts_of(run))[0]


@contextmanager
def _leaving(run: Run, *, alone: bool) -> Iterator[None]:
    """However a run ends early, what is left of it is whole, and said; a folder that holds nothing goes.

    A run that is not ``alone`` is one of several, and not itself what can be taken up again.
    """
    kept, states = False, StateFolder(run.folder)
    try:
        yield
    except KeyboardInterrupt:
        if is_checkpoint(run.folder):
            raise KeyboardInterrupt(f"the best checkpoint so far is in {run.folder}") from None
        raise
    except StoppedError as error:
        kept = error.code == TERMINATED
        raise
    finally:
        run.cleanup.close()
        if run.writes and not (kept or states or is_checkpoint(run.folder)):
            shutil.rmtree(run.folder, ignore_errors=True)
        if alone and run.writes and (kept or states):
            run.reporter.message(f"tlkit finetune --resume {run.folder} goes on from here")


def _train(run: Run, *, alone: bool) -> Outcome:
    if run.policy.fits_head_first or is_guarded(run):
        run.trainable()
        resolve(run)  # a mistake is told before a pass over the images is paid for
    head = fit_guard(run)
    if run.policy.fits_head_first:
        first = fit_head_first(run)
        outcome = _train_policy(run, head, alone=alone)
        return replace(outcome, phases=(("head", first), *outcome.phases))
    return _train_policy(run, head, alone=alone)


def _train_policy(run: Run, head: FittedHead | None, *, alone: bool) -> Outcome:
    order = apply_trainable(run, run.trainable())
    reuse = open_reuse(run, order)
    if reuse is not None and wants_closed_form(run, reuse):
        return fit_closed_form(run, reuse, alone=alone)
    return fit_by_gradient(run, order, reuse, head=head)


def _held_out(run: Run, outcome: Outcome) -> Outcome:
    """The outcome whose test images that are in val too have the outputs of a head that was not fitted to them."""
    places = {digest_prefix(sample): place for place, sample in enumerate(run.manifest.split("val"))}
    test = [digest_prefix(sample) for sample in run.manifest.split("test")]
    copies = [row for row, digest in enumerate(test) if digest in places]
    if not copies:
        return outcome

    def mended(logits: Mapping[str, Tensor]) -> dict[str, Tensor]:
        rows = logits["test"].clone()
        rows[copies] = logits["val"][[places[test[row]] for row in copies]]
        return {**logits, "test": rows}

    guard = outcome.guard
    if guard is not None and guard.beside is not None and guard.beside.refit:
        guard = replace(guard, beside=replace(guard.beside, logits=mended(guard.beside.logits)))
    held = outcome.held_out_head is not None
    return replace(outcome, guard=guard, logits=mended(outcome.logits) if held else outcome.logits)


def _finish(run: Run, outcome: Outcome, resumable: Mapping[str, Any]) -> FinetuneResult:
    """Scores, weights and ``tlkit.json``; the saved states go, unless Ctrl-C ended the run before its time."""
    scores = {split: _score(run, outcome.logits, split) for split in ("val", "test")}
    refit = outcome.held_out_head is not None
    if run.settled is not None and refit:
        scores["val"] = run.settled.record["val"]
    data = _data(run, outcome.chosen_by_val, refit=refit)
    if run.writes:
        with run.clock("save"):
            _save(run, outcome, data, resumable)
    result = FinetuneResult(
        checkpoint=str(run.folder),
        model=run.config.model,
        policy=str(run.policy),
        classes=run.manifest.classes,
        trainable_parameters=outcome.trainable_parameters,
        epochs=outcome.epochs,
        val=scores["val"],
        test=scores["test"],
        seconds=run.clock.seconds(),
        audit=_audit(outcome),
        status=outcome.status,
        snapshots=tuple(_finish_snapshot(run, outcome, each) for each in outcome.waypoints),
        swa=None if outcome.swa is None else asdict(outcome.swa),
        guard=_guard(run, outcome),
        left_out=left_out_dict(run.manifest.named(run.manifest.exclusions)),
        **_worth(run, data),
        cross_validated=None if outcome.cross_validated is None else dict(outcome.cross_validated),
        refit=refit,
    )
    more = {"resume": resumable} if outcome.status in UNFINISHED else {}
    written = {**_without_classes(result), **more}
    _save_meta(run, data=data, best_epoch=outcome.best_epoch, settings=outcome.settings, **written)
    if run.writes and not more:
        StateFolder(run.folder).remove()
        key = outputs_key([run.folder], classes=run.manifest.classes, precisions=[run.runtime.precision])
        for split in ("val", "test"):
            if run.manifest.split(split):
                probabilities = metrics.softmax(outcome.logits[split].numpy().astype(np.float64))
                keep_outputs(key, run.manifest.split(split), probabilities[None])
    track_options(run, outcome.settings)
    track_result(run, result)
    if outcome.error is not None:
        raise TrainingError(f"{outcome.error}; the best epoch so far is kept in {run.folder}")
    return result


def _save(run: Run, outcome: Outcome, data: Mapping[str, Any], resumable: Mapping[str, Any]) -> None:
    """Write weights and curves. The held-out head and its record come before weights that were fitted to its images."""
    save_held_out_head(run.folder, outcome.held_out_head, model=run.model)
    if outcome.held_out_head is not None:
        _save_meta(run, data=data, status="running", resume=resumable)
    save_weights(run.folder, run.model)
    if (run.config.plot or run.tracking.takes_pictures) and outcome.epochs:
        guard = outcome.guard
        draw_curves(
            run.folder,
            best_epoch=outcome.best_epoch,
            selected="epoch" in outcome.chosen_by_val,
            kept=None if guard is None or guard.alpha == 1 else guard.kept,
        )


def _audit(outcome: Outcome) -> dict[str, Any]:
    """Audit of the last phase, with those of earlier phases under ``phases`` if the run had any."""
    phases = [{"phase": name, **audit.to_dict()} for name, audit in outcome.phases]
    return {**outcome.audit.to_dict(), **({"phases": phases} if phases else {})}


def _guard(run: Run, outcome: Outcome) -> dict[str, Any] | None:
    """The comparison with the head; the network kept beside the run's own becomes a checkpoint."""
    if outcome.guard is None:
        return None
    beside = outcome.guard.beside
    found = outcome.guard.to_dict(None if beside is None else _finish_snapshot(run, outcome, beside), str(run.folder))
    if beside is not None:
        run.reporter.message(
            f"the mean of two networks' probabilities is better by more than noise (val nll "
            f"{found['together']['nll']:.3f}): {found['together']['command']}"
        )
    return found


def _finish_snapshot(run: Run, outcome: Outcome, waypoint: Waypoint) -> Snapshot:
    """Scores, and with them what makes its folder a checkpoint."""
    data = _data(run, waypoint.chosen_by_val, refit=waypoint.refit)
    snapshot = Snapshot(
        checkpoint=str(waypoint.folder),
        step=waypoint.step,
        val=_score(run, waypoint.logits, "val"),
        test=_score(run, waypoint.logits, "test"),
        **_worth(run, data),
    )
    common = {"model": run.config.model, "policy": str(run.policy), "status": "finished", "settings": outcome.settings}
    _save_meta(run, waypoint.folder, data=data, run_folder=str(run.folder), **common, **to_json(snapshot))
    return snapshot


def _score(run: Run, logits: Mapping[str, Tensor], split: str) -> dict[str, float] | None:
    samples = run.manifest.split(split)
    if not samples:
        return None
    probabilities = metrics.softmax(logits[split].numpy().astype(np.float64))
    return metrics.summary(probabilities, labels_of(samples))


def _without_classes(result: FinetuneResult) -> dict[str, Any]:
    return {name: value for name, value in result.to_dict().items() if name != "classes"}


def _save_meta(
    run: Run, folder: Path | None = None, *, data: Mapping[str, Any] | None = None, **content: object
) -> None:
    """Write the record of the run's folder, or of another ``folder`` of it.

    ``data`` as :func:`_data` has it; None before it is known what validation chooses.
    """
    if not run.writes:
        return
    save_meta(
        folder or run.folder,
        run.manifest.classes,
        config=to_json(run.config),
        data=data or _data(run, None),
        precision=run.runtime.precision,
        decoder=run.preprocessing.decoder,
        ranges=run.preprocessing.ranges.to_dict() if run.preprocessing.ranges is not None else {},
        weights=asdict(run.weights) | {"loaded": len(run.weights.loaded)},
        **content,
    )


def _data(run: Run, chosen_by_val: Sequence[str] | None, *, refit: bool = False) -> dict[str, Any]:
    """The images of the run by what they were for: what :func:`uses_in` reads. A teacher's where it knows more.

    ``refit``: the final head was fitted to those of val too, and the folder has the head that was not; of a second
    training, all of the first one's tensors.
    """
    if run.settled is not None and refit:
        return {**run.settled.record["data"], "refit": True}
    data: dict[str, Any] = {
        "content": run.images.content_hash(),
        "root": str(run.manifest.root),
        "images": {split: len(run.manifest.split(split)) for split in ("train", "val", "test")},
        "train": _digests(run, "train"),
        "val": _digests(run, "val"),
    }
    if refit:
        data["refit"] = True
    if chosen_by_val is not None:
        data["selected"] = list(chosen_by_val)
    if run.taught is not None:
        data["teacher"] = run.taught.uses.beside(data["train"]).to_dict()
    return data


def _worth(run: Run, data: Mapping[str, Any]) -> dict[str, Any]:
    """Kinds of the scores by split, and the choices that validation images made, also for the run's teacher."""
    splits = {split: run.manifest.split(split) for split in ("val", "test")}
    uses = uses_in(data, str(run.folder))
    kinds = kinds_of(splits, uses)
    if run.settled is not None and data.get("refit"):
        kinds = {**kinds, "val": run.settled.record["kinds"]["val"]}
    return {"kinds": kinds, "chosen_by_val": uses.chose}


def _digests(run: Run, split: str) -> list[str]:
    """As a record names them; what they were for, :mod:`tl_kit.storage.seen_images` says."""
    return sorted(digest_prefix(sample) for sample in run.manifest.split(split))

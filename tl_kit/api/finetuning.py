"""``finetune``: from a folder of images and a timm name to a checkpoint."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from torch import Tensor

from tl_kit import metrics
from tl_kit.api.choosing import facts_of, settle_policy
from tl_kit.api.closed_form import fit_closed_form, fit_head_first, wants_closed_form
from tl_kit.api.curves import draw_curves
from tl_kit.api.gradient import fit_by_gradient
from tl_kit.api.left_out import left_out_dict
from tl_kit.api.outcome import Outcome
from tl_kit.api.preparation import prepare
from tl_kit.api.reuse import open_reuse
from tl_kit.api.run import Run, apply_trainable, labels_of
from tl_kit.api.settings import resolve
from tl_kit.config import FinetuneConfig
from tl_kit.data.manifest import Manifest
from tl_kit.errors import TrainingError
from tl_kit.freezing.policies import HEAD_FIRST
from tl_kit.reporting import SILENT, Reporter
from tl_kit.training.checkpoint import digest_prefix, is_checkpoint, save_config, save_meta, save_weights

__all__ = ["FinetuneResult", "Trained", "finetune", "finetune_on"]


@dataclass(frozen=True, kw_only=True)
class FinetuneResult:
    """What a run produced. ``val`` is None without validation images, ``test`` without test images.

    ``left_out``: path and reason of each file that could not be used.
    """

    checkpoint: str
    model: str
    policy: str
    classes: tuple[str, ...]
    trainable_parameters: int
    epochs: int
    val: dict[str, float] | None
    test: dict[str, float] | None
    seconds: dict[str, float]
    audit: dict[str, Any]
    status: str = "finished"
    left_out: list[dict[str, str]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {**asdict(self), "classes": list(self.classes)}


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A run's result, the manifest it ended with, and the model's outputs (n, classes) on its val and test."""

    result: FinetuneResult
    manifest: Manifest
    logits: Mapping[str, Tensor]


def finetune(config: FinetuneConfig, *, reporter: Reporter = SILENT) -> FinetuneResult:
    """Fine-tune one model and write its checkpoint folder.

    Raises a subclass of TlKitError for every mistake in the data, the options or the weights. Ctrl-C after the first
    epoch ends the run with the best checkpoint and ``status="interrupted"``; before it, KeyboardInterrupt passes on and
    no folder is left behind.
    """
    return finetune_on(None, config, reporter=reporter).result


def finetune_on(manifest: Manifest | None, config: FinetuneConfig, *, reporter: Reporter = SILENT) -> Trained:
    """:func:`finetune` on images that have been scanned and split already, instead of a scan of ``config.data``."""
    run = prepare(config, reporter, manifest=manifest)
    try:
        if config.policy == "auto":
            settle_policy(run, facts_of(run))
        if run.writes:
            save_config(run.folder, run.model, run.manifest.classes, run.preprocessing)
        _save_meta(run, status="running")
        outcome = _train(run)
        return Trained(result=_finish(run, outcome), manifest=run.manifest, logits=outcome.logits)
    except KeyboardInterrupt:
        if is_checkpoint(run.folder):
            raise KeyboardInterrupt(f"the best checkpoint so far is in {run.folder}") from None
        raise
    finally:
        run.cleanup.close()
        if run.writes and not is_checkpoint(run.folder):
            shutil.rmtree(run.folder, ignore_errors=True)


def _train(run: Run) -> Outcome:
    if run.policy.name in HEAD_FIRST:
        run.trainable()
        resolve(run)  # a mistake is told before a pass over the images is paid for
        first = fit_head_first(run)
        outcome = _train_policy(run)
        return replace(outcome, phases=(("head", first), *outcome.phases))
    return _train_policy(run)


def _train_policy(run: Run) -> Outcome:
    order = apply_trainable(run, run.trainable())
    reuse = open_reuse(run, order)
    if reuse is not None and wants_closed_form(run, reuse):
        return fit_closed_form(run, reuse)
    return fit_by_gradient(run, order, reuse)


def _finish(run: Run, outcome: Outcome) -> FinetuneResult:
    scores = {split: _score(run, outcome, split) for split in ("val", "test")}
    if run.writes:
        save_weights(run.folder, run.model)
        if run.config.plot and outcome.epochs:
            draw_curves(run.folder, best_epoch=outcome.best_epoch)
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
        left_out=left_out_dict(run.manifest.exclusions),
    )
    _save_meta(run, best_epoch=outcome.best_epoch, settings=outcome.settings, **_without_classes(result))
    if outcome.error is not None:
        raise TrainingError(f"{outcome.error} in {run.folder}")
    return result


def _audit(outcome: Outcome) -> dict[str, Any]:
    """The last phase's audit, and those of the phases before where there were any."""
    phases = [{"phase": name, **audit.to_dict()} for name, audit in outcome.phases]
    return {**outcome.audit.to_dict(), **({"phases": phases} if phases else {})}


def _score(run: Run, outcome: Outcome, split: str) -> dict[str, float] | None:
    samples = run.manifest.split(split)
    if not samples:
        return None
    probabilities = metrics.softmax(outcome.logits[split].numpy().astype(np.float64))
    return metrics.summary(probabilities, labels_of(samples))


def _without_classes(result: FinetuneResult) -> dict[str, Any]:
    return {name: value for name, value in result.to_dict().items() if name != "classes"}


def _save_meta(run: Run, **content: object) -> None:
    if not run.writes:
        return
    save_meta(
        run.folder,
        run.manifest.classes,
        config=_plain(asdict(run.config)),
        data={
            "content": run.manifest.content_hash(),
            "root": str(run.manifest.root),
            "train": _digests(run, "train"),
            "val": _digests(run, "val"),
        },
        precision=run.runtime.precision,
        weights=asdict(run.weights) | {"loaded": len(run.weights.loaded)},
        **content,
    )


def _digests(run: Run, split: str) -> list[str]:
    """What was trained on or selected with: a later evaluation on these images would be no test."""
    return sorted(digest_prefix(sample) for sample in run.manifest.split(split))


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))

"""Kept weights: the best epoch's; and extra checkpoints (snapshots of cycles, the last epochs) and the SWA average.

The extra ones follow from the number of updates, not from validation, unless that lowers the rate or ends the run.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from tl_kit.errors import TrainingError
from tl_kit.finetuning.batch_sources import Source, agreed_scores
from tl_kit.finetuning.result import SwaVerdict, Waypoint
from tl_kit.finetuning.run import Run
from tl_kit.finetuning.saved_state import changing_names
from tl_kit.finetuning.settings import Settings
from tl_kit.machine.process_group import first_answer
from tl_kit.storage.checkpoint import WEIGHTS, save_config, save_weights
from tl_kit.training.averaging import UniformAverage
from tl_kit.training.batchnorm import reestimate_statistics, statistics_layers
from tl_kit.training.loop import better, share_of
from tl_kit.training.stateful import check_tensors
from tl_kit.training.task import Callback, FitResult, Task

__all__ = ["BestWeights", "ExtraCheckpoints", "new_statistics"]


class ExtraCheckpoints(Callback):
    """Folders beside the best checkpoint, and the SWA average. Made when the training images are known.

    ``written`` names the folders that are there, and after which update. ``snapshot-1`` ... hold the weights at the end
    of each cycle of the rate (Huang et al. 2017), ``epoch-n`` those of the last epochs (Chen et al. 2017): exactly as
    validation would see them, which under an EMA is the average.
    """

    def __init__(self, run: Run, settings: Settings, averaged: Callable[[], AbstractContextManager[None]]) -> None:
        images = len(run.manifest.split("train"))
        self.run = run
        self.settings = settings
        self.averaged = averaged
        self.per_epoch = math.ceil(images / settings.batch_size)
        self.cycles = settings.cycle_ends(images) if settings.snapshots else ()
        self.swa_steps = settings.swa_steps(images)
        self.average = UniformAverage(run.model) if self.swa_steps else None
        self.written: dict[str, int] = {}

    @property
    def wanted(self) -> bool:
        """True where the run keeps extra checkpoints or an average."""
        return self.average is not None or bool(self.cycles) or bool(self.settings.late)

    def keeps(self, step: int) -> bool:
        return step in self.swa_steps or bool(self._names(step))

    def on_step(self, step: int) -> None:
        if self.average is not None and step in self.swa_steps:
            self.average.update()
        if names := self._names(step):
            with self.averaged():
                for name in names:
                    self._write(name, step)
            self._drop_early()

    def _names(self, step: int) -> list[str]:
        """The folders for the weights after this update."""
        snapshots = [f"snapshot-{self.cycles.index(step) + 1}"] if step in self.cycles else []
        late = self.settings.late and step % self.per_epoch == 0
        return [*snapshots, *([f"epoch-{step // self.per_epoch}"] if late else [])]

    def _write(self, name: str, step: int) -> None:
        run, folder = self.run, self.run.folder / name
        self.written[name] = step
        if run.writes:
            folder.mkdir(exist_ok=True)
            save_config(folder, run.model, run.manifest.classes, run.preprocessing)
            save_weights(folder, run.model)

    def _drop_early(self) -> None:
        """Remove the folder of each epoch that is no longer one of the last ``settings.late``."""
        epochs = sorted((step, name) for name, step in self.written.items() if name.startswith("epoch-"))
        for _, name in epochs[: -(self.settings.late or 1)]:
            self._remove(name)

    def _remove(self, name: str) -> None:
        del self.written[name]
        if self.run.writes:
            shutil.rmtree(self.run.folder / name, ignore_errors=True)

    def judge(self, task: Task, source: Source, result: FitResult, best_weights: BestWeights) -> SwaVerdict | None:
        """Compare the uniform average with the kept epoch on validation; if it is no worse, it is kept instead.

        BatchNorm layers that trained get statistics anew, from one pass over the training images.
        """
        if self.average is None or not self.average.count:
            return None
        run, best = self.run, result.best
        self.average.load()
        new_statistics(run, task, source, epoch=result.epochs)
        try:
            scores = agreed_scores(run, source)
        except TrainingError:  # an average may leave the range of what it averages: the statistics are new
            scores = None
        kept = scores is not None and (best is None or not better(best, scores, task.select))
        if kept:
            best_weights.keep(result.best_epoch)
        last = task.keep_last and result.best_epoch == task.epochs
        beside = f"the {'last' if last else 'best'} epoch"
        run.reporter.message(_said(self.average.count, scores, best, beside=beside, kept=kept))
        return SwaVerdict(count=self.average.count, val=scores, best_epoch_val=best, kept=kept)

    def score(self, source: Source) -> tuple[Waypoint, ...]:
        """Outputs of the kept weights on val and test. The model is left with the last of them.

        Those whose outputs are not finite, before a failure, are removed.
        """
        found = []
        for name, step in sorted(self.written.items(), key=lambda item: (item[0].split("-")[0], item[1])):
            folder = self.run.folder / name
            self._load(folder)
            logits = {split: source.logits(split) for split in ("val", "test")}
            if torch.isfinite(logits["val"]).all():
                found.append(Waypoint(folder=folder, step=step, logits=logits, chosen_by_val=self._chosen(name, step)))
            else:
                self._remove(name)
        return tuple(found)

    def _chosen(self, name: str, step: int) -> tuple[str, ...]:
        """Validation's choices in these weights: a rate that it lowers, and which epochs are the last ones."""
        rate = self.settings.schedule == "plateau" and step > self.per_epoch
        length = name.startswith("epoch-") and self.settings.patience < self.settings.epochs
        return tuple(what for what, chosen in (("rate", rate), ("length", length)) if chosen)

    def _load(self, folder: Path) -> None:
        tensors: dict[str, Tensor] = {}
        if self.run.writes:
            tensors = safetensors.torch.load_file(str(folder / WEIGHTS))
        self.run.model.load_state_dict(first_answer(tensors))

    def state(self) -> dict[str, Any]:
        """The state for :meth:`load_state`: ``written`` (plain JSON) and ``average`` (tensors)."""
        average = {} if self.average is None else self.average.state()
        return {"written": dict(self.written), "average": average}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of the same run. Folders that have gone since are written again, or were to go."""
        self.written = {name: step for name, step in state["written"].items() if (self.run.folder / name).is_dir()}
        if self.average is not None:
            self.average.load_state(state["average"])


def new_statistics(run: Run, task: Task, source: Source, *, epoch: int, most: int | None = None) -> bool:
    """Estimate anew the statistics of BatchNorm layers that train with those of each batch; False where none do.

    One pass over the training images as that epoch varies them, or over the first ``most`` of them (a batch at least).
    The model ends in eval mode.
    """
    batches = task.order(epoch)
    task.set_mode(min(len(share_of(indices, run.accelerator)) for indices in batches))
    layers = [layer for layer in statistics_layers(source.module).values() if layer.training]
    if not layers:
        source.module.eval()
        return False
    enough = len(batches) if most is None else max(1, most // len(batches[0]))
    images = (source.batch(indices, epoch)[0] for indices in batches[:enough])
    with task.precision():
        reestimate_statistics(source.module, images, layers=layers)
    return True


def _said(
    count: int, scores: Mapping[str, float] | None, best: Mapping[str, float] | None, *, beside: str, kept: bool
) -> str:
    """The outcome of the uniform average, in a sentence; ``beside`` names the epoch that it is compared with."""
    verdict = "kept: no worse than" if kept else "not kept: worse than"
    average, epoch = (
        "no finite outputs" if row is None else f"val accuracy {row['accuracy']:.1%}, nll {row['nll']:.3f}"
        for row in (scores, best)
    )
    states = f"{count} states" if count != 1 else "one state"
    return f"swa: the average of {states} ({average}) is {verdict} {beside} ({epoch})"


class BestWeights(Callback):
    """Keeps the best epoch's weights, in memory and in the run's folder."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.best: dict[str, Tensor] = {}
        self.epoch = 0

    def on_epoch(self, result: FitResult) -> None:
        if result.best_epoch == result.epochs:
            self.keep(result.epochs)

    def keep(self, epoch: int) -> None:
        """Take the model's weights as they are now for the best so far."""
        self.epoch = epoch
        self.best = {name: tensor.detach().cpu().clone() for name, tensor in self.run.model.state_dict().items()}
        if self.run.writes:
            save_weights(self.run.folder, self.run.model)

    def restore(self) -> None:
        self.run.model.load_state_dict(first_answer(self.best))

    def state(self) -> dict[str, object]:
        """The tensors that the run may have changed; frozen ones are in the model already."""
        names = changing_names(self.run)
        return {"epoch": self.epoch, "tensors": {n: tensor for n, tensor in self.best.items() if n in names}}

    def load_state(self, state: Any) -> None:
        self.epoch, self.best = state["epoch"], {}
        if not state["tensors"]:  # no epoch was over
            return
        own = self.run.model.state_dict()
        names = changing_names(self.run) & own.keys()
        check_tensors({name: own[name] for name in names}, state["tensors"])
        self.best = {name: t.detach().cpu().clone() for name, t in {**own, **state["tensors"]}.items()}

    def result(self) -> FitResult:
        return FitResult(epochs=self.epoch, best_epoch=self.epoch)

"""Saved states: a callback that saves a run's state as it trains, and a fit that goes on from one."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object

from tl_kit import stopping
from tl_kit.errors import CheckpointError, DataError, WeightsError, first_line
from tl_kit.finetuning.run import Run
from tl_kit.finetuning.settings import Settings
from tl_kit.machine.process_group import first_answer
from tl_kit.storage.checkpoint import HELD_OUT_HEAD, WEIGHTS, is_checkpoint, version_of
from tl_kit.storage.ensemble_folder import MANIFEST
from tl_kit.storage.fingerprint import digest_of, network_settings, plain_fields
from tl_kit.storage.metrics_log import Journal
from tl_kit.storage.relocation import birthplace
from tl_kit.storage.saved_states import StateFolder
from tl_kit.storage.unfinished import Unfinished
from tl_kit.training.loop import begin_phase
from tl_kit.training.stateful import RandomState, Stateful
from tl_kit.training.task import Callback, FitResult, Task
from tl_kit.untrusted import sha256
from tl_kit.zoo.model_card import CONFIG

__all__ = ["StateSaver", "changing_names", "check_unchanged", "facts", "saved_settings", "take_up"]

_SETTINGS = ("epochs", "batch_size", "patience", "lr", "keep_epoch")


def changing_names(run: Run) -> frozenset[str]:
    """The tensors that the run may change: the parameters that train, now or in a later epoch, and all buffers."""
    return run.trainable(sys.maxsize) | {name for name, _ in run.model.named_buffers()}


class StateSaver(Callback):
    """Saves the task's parts and the fit's result.

    It does so when it is time, and when a request to stop is waiting. Several processes do so at the start of an epoch,
    if it is time by the first one's clock; each adds what only it has. Of a disk that is full it warns once, and
    training goes on; the next time it tries again. Time is the monotonic clock's.
    """

    def __init__(self, run: Run, settings: Settings, parts: Mapping[str, Stateful]) -> None:
        self.run = run
        self.parts = parts
        self.states = StateFolder(run.folder)
        self.settings = {name: getattr(settings, name) for name in _SETTINGS}
        self._active = run.config.save.every > 0 and not run.dry
        self._alone = run.accelerator.num_processes == 1
        self._result: FitResult | None = None
        self._due = time.monotonic() + run.config.save.every
        self._warned = False

    def on_epoch(self, result: FitResult) -> None:
        self._result = result

    def on_phase(self, task: Task, epoch: int) -> None:
        """The model holds the weights that train, and all processes are here."""
        if not self._active or self._alone or self._result is None:
            return
        if first_answer(time.monotonic() >= self._due):
            own = gather_object([_own_state(self.run)])
            if self.run.writes:
                self._save(self._result, processes=own)

    def on_resumable(self, result: FitResult) -> None:
        if self._active and self._alone and (time.monotonic() >= self._due or self._asked()):
            self._save(result)

    def _asked(self) -> bool:
        """Ctrl-C leaves nothing behind where there was nothing before it."""
        stop = stopping.waiting()
        if isinstance(stop, KeyboardInterrupt):
            return is_checkpoint(self.run.folder) or bool(self.states)
        return stop is not None

    def _save(self, result: FitResult, *, processes: Sequence[object] = ()) -> None:
        run, started = self.run, time.monotonic()
        result.read_losses()
        tree = {
            "content": run.manifest.content_hash(),
            "settings": self.settings,
            "result": asdict(result),
            "parts": {name: part.state() for name, part in self.parts.items()},
            "processes": list(processes),
        }
        try:
            self.states.save(tree)
        except CheckpointError as error:
            if not run.folder.is_dir():
                raise
            if not self._warned:
                run.reporter.message(f"the run's state is not saved: {error}; training goes on")
            self._warned = True
        ended, limits = time.monotonic(), run.config.save
        self._due = ended + max(limits.every, (ended - started) * (1 / limits.most_share - 1))


def saved_settings(run: Run) -> dict[str, Any]:
    """The settings as they were resolved when the run began; empty where it begins now."""
    saved = {} if run.resumed is None else dict(run.resumed.saved("settings"))
    return {"keep_epoch": "best", **saved} if saved else {}  # older states do not name it


def take_up(run: Run, task: Task) -> FitResult | None:
    """Make task and run what they were when their state was saved; None where the run begins now.

    Every phase up to that epoch is gone through, without training; none that the fit does not come to. Raises DataError
    where other images could be decoded then, and CheckpointError for a state that does not fit the run.
    """
    resumed = run.resumed
    if resumed is None or resumed.state is None or not resumed.saved("parts"):
        return None
    if resumed.state.get("content") != run.manifest.content_hash():
        raise DataError(f"{run.config.data}: other images can be decoded now than when the run began; start a new run")
    _check_processes(run, resumed.state)
    with _fitting(run):
        result = FitResult.from_dict(resumed.saved("result"))
    over = result.epochs >= task.epochs or result.epochs - result.best_epoch >= task.patience
    for epoch in range(result.epochs if over else result.epochs + 1):
        begin_phase(task, epoch)
    with _fitting(run):
        _load_parts(task.parts, resumed.saved("parts"))
        if run.accelerator.num_processes > 1:
            _take_own_state(run, resumed.state["processes"][run.accelerator.process_index])
    journal = Journal(run.folder if run.writes else None)
    for row in result.history:
        journal.write(**row)
    run.tracking.catch_up(result.history)
    run.reporter.message(f"taken up in epoch {result.epochs + 1}, after {result.progress.steps} of its steps")
    return result


def _own_state(run: Run) -> dict[str, Any]:
    """The state of this process alone, of several: its random numbers, and the buffers (BatchNorm's statistics)."""
    buffers = {name: tensor.detach().cpu() for name, tensor in run.model.named_buffers()}
    return {"random": RandomState(run.runtime.device).state(), "buffers": buffers}


@torch.no_grad()
def _take_own_state(run: Run, state: Mapping[str, Any]) -> None:
    RandomState(run.runtime.device).load_state(state["random"])
    for name, tensor in run.model.named_buffers():
        tensor.copy_(state["buffers"][name])


def _check_processes(run: Run, state: Mapping[str, Any]) -> None:
    """Raises CheckpointError unless as many processes train as trained when the state was saved."""
    found = state.get("processes", [])
    before = len(found) if isinstance(found, list) and found else 1
    now = run.accelerator.num_processes
    if before != now:
        trained = "1 process" if before == 1 else f"{before} processes"
        how = "neither torchrun nor accelerate launch" if before == 1 else "as many (torchrun, accelerate launch)"
        raise CheckpointError(
            f"--resume {run.folder}: trained by {trained}, and would go on with {now}; start it with {how}"
        )


@contextmanager
def _fitting(run: Run) -> Iterator[None]:
    """Turn errors of a state that does not fit into one line: a state is a file, and may hold anything."""
    try:
        yield
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError) as error:
        raise CheckpointError(
            f"{run.folder}: its saved state does not fit the run ({first_line(error)}); start a new run"
        ) from error


def _load_parts(parts: Mapping[str, Stateful], saved: Mapping[str, Any]) -> None:
    if saved.keys() != parts.keys():
        raise ValueError(f"it has {', '.join(sorted(saved))}, not {', '.join(sorted(parts))}")
    for name, part in parts.items():
        part.load_state(saved[name])


def facts(run: Run, content: str, *, policy: str | None) -> dict[str, Any]:
    """The facts that a run records at its start: ``--resume`` takes them over, or checks that they are unchanged.

    ``content``: of the images as they were scanned; ``policy``: once it is settled.
    """
    return {
        "content": content,
        "weights": run.weights.sha256,
        "policy": policy,
        "precision": run.runtime.precision,
        "crop_mode": run.preprocessing.crop_mode,
        "flip": "on" if run.augment.flip else "off",
        "decoder": run.preprocessing.decoder,
        "born": birthplace(run.folder),
        "network": _network(run),
        "teacher": _teacher(run),
        "surroundings": _surroundings(run),
    }


def _network(run: Run) -> str:
    """Digest of the settings of network and images: a folder's config.json may have changed by now."""
    images = {name: value for name, value in plain_fields(run.preprocessing).items() if name != "decoder"}
    return digest_of([network_settings(run.model), images])


def _teacher(run: Run) -> str | None:
    """Digest of the files of the teacher's folder; None without a teacher."""
    folder = _teacher_folder(run)
    if folder is None:
        return None
    files = sorted(file for name in (WEIGHTS, CONFIG, MANIFEST, HELD_OUT_HEAD) for file in folder.rglob(name))
    return digest_of([[str(file.relative_to(folder)), sha256(file, error=WeightsError)] for file in files])


def _teacher_folder(run: Run) -> Path | None:
    return None if run.config.distill is None else Path(run.config.distill.teacher)


def _surroundings(run: Run) -> dict[str, Any]:
    names = ("tl-kit", "torch", "torchvision", "timm", "numpy", "scikit-learn")
    return {"device": run.runtime.device.type, "threads": torch.get_num_threads(), **{n: version_of(n) for n in names}}


def check_unchanged(run: Run, resumed: Unfinished, content: str) -> None:
    """Raises DataError for other images and WeightsError for other pretrained weights than those the run began with.

    Another device, number of threads or version is said: numbers are then rounded otherwise.
    """
    before, folder = resumed.facts, resumed.folder
    if not before:
        return
    back = f"that the run in {folder} began with; bring them back, or start a new run"
    if before.get("content") != content:
        raise DataError(f"{run.config.data}: not the images {back}")
    if before.get("weights") != run.weights.sha256:
        raise WeightsError(f"{run.weights.source}: not the weights {back}")
    if before.get("teacher", teacher := _teacher(run)) != teacher:
        raise WeightsError(f"{_teacher_folder(run)}: not the teacher's weights {back}")
    old, new = before.get("surroundings"), _surroundings(run)
    if old == new and before.get("network", network := _network(run)) != network:
        raise WeightsError(
            f"{run.config.model}: its config.json describes another network than that which the run in {folder} began "
            "with; bring that file back, or start a new run"
        )
    if isinstance(old, dict) and old != new:
        other = ", ".join(f"{name} {old.get(name)} then, {new[name]} now" for name in new if old.get(name) != new[name])
        run.reporter.message(f"{other}: the weights may differ in the last digits from those of an uninterrupted run")

"""A run that ended early, opened to be taken up again: its folder, what must still hold, and its last saved state."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tl_kit.api.relocation import birthplace
from tl_kit.ensembling.folder import MANIFEST, is_ensemble
from tl_kit.errors import CheckpointError, DataError, WeightsError
from tl_kit.reporting import Reporter
from tl_kit.training.checkpoint import META, WEIGHTS
from tl_kit.training.files import remove_leftovers
from tl_kit.training.fingerprint import digest_of, network_settings, plain_fields
from tl_kit.training.journal import JOURNAL
from tl_kit.training.lock import FolderLock
from tl_kit.training.states import STATE, StateFolder
from tl_kit.zoo.cards import CONFIG
from tl_kit.zoo.files import sha256

if TYPE_CHECKING:
    from tl_kit.api.run import Run

__all__ = ["UNFINISHED", "Unfinished", "check_unchanged", "facts", "is_unfinished", "open_unfinished", "read_run"]

UNFINISHED = ("running", "interrupted")


@dataclass(frozen=True)
class Unfinished:
    """``facts`` are those of :func:`facts`, empty where the run was killed before it noted them.

    ``state`` is None where nothing was saved: the run then starts over, in the same folder. The lock is held.
    """

    folder: Path
    lock: FolderLock
    facts: Mapping[str, Any]
    state: Mapping[str, Any] | None


def open_unfinished(folder: Path, lock: FolderLock, reporter: Reporter) -> Unfinished:
    """Drop what was half written, and read the last state that is whole; ``lock`` is that of the folder.

    Raises CheckpointError where states were saved and none can be read.
    """
    states = StateFolder(folder)
    remove_leftovers(folder)
    states.clean()
    state, notes = states.load(drop=True)
    for note in notes:
        reporter.message(f"{note}; the state before it is taken")
    (folder / JOURNAL).unlink(missing_ok=True)  # written again, up to where the state stands
    found = read_run(folder).get("resume") if (folder / META).is_file() else None
    return Unfinished(folder, lock, found if isinstance(found, dict) else {}, state)


def read_run(folder: Path) -> dict[str, Any]:
    """The content of a run's ``tlkit.json``. Raises CheckpointError where there is none, or it is no JSON object."""
    if not (folder / META).is_file():
        raise CheckpointError(f"--resume {folder}: {_no_run(folder)}")
    try:
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{folder / META}: cannot be read as JSON ({error})") from error
    if not isinstance(meta, dict):
        raise CheckpointError(f"{folder / META}: not in a format that this version of tl-kit reads")
    return meta


def _no_run(folder: Path) -> str:
    """Why nothing can be resumed in a folder without ``tlkit.json``, and what can be done."""
    above = folder.parent
    if (folder.is_file() or folder.name == STATE) and (above / META).is_file():
        return f"is a part of a run; give its folder, {above}"
    if folder.is_file():
        return "is a file; give the folder of a run of tlkit finetune"
    if not folder.is_dir():
        return "no such folder; give the folder of a run of tlkit finetune"
    if is_ensemble(folder):
        return "is an ensemble, which is made in one go; make it again with tlkit ensemble"
    runs = sorted(each.parent.name for each in folder.glob(f"*/{META}"))
    if runs:
        return f"holds no run itself but {len(runs)} below it; give one of them, such as {folder / runs[0]}"
    return f"holds no run of tlkit finetune ({META} missing); start it anew"


def is_unfinished(folder: Path) -> bool:
    """Whether a run has ended early there, so that ``--resume`` goes on."""
    try:
        return any((folder / STATE).glob("*.json")) or read_run(folder).get("status") in UNFINISHED
    except CheckpointError:
        return False


def facts(run: Run, content: str, *, policy: str | None) -> dict[str, Any]:
    """What a run notes when it begins: what ``--resume`` must not find out anew, or find to be something else.

    ``content``: of the images as they were scanned; ``policy``: once it is settled.
    """
    return {
        "content": content,
        "weights": run.weights.sha256,
        "policy": policy,
        "precision": run.runtime.precision,
        "born": birthplace(run.folder),
        "network": _network(run),
        "teacher": _teacher(run),
        "surroundings": _surroundings(run),
    }


def _network(run: Run) -> str:
    """Of the network's settings and those of its images: a folder's config.json may be another one by now."""
    return digest_of([network_settings(run.model), plain_fields(run.preprocessing)])


def _teacher(run: Run) -> str | None:
    """Of the files of the teacher's folder; None without a teacher."""
    folder = _teacher_folder(run)
    if folder is None:
        return None
    files = sorted(file for name in (WEIGHTS, CONFIG, MANIFEST) for file in folder.rglob(name))
    return digest_of([[str(file.relative_to(folder)), sha256(file)] for file in files])


def _teacher_folder(run: Run) -> Path | None:
    return None if run.config.distill is None else Path(run.config.distill.teacher)


def _surroundings(run: Run) -> dict[str, Any]:
    names = ("tl-kit", "torch", "torchvision", "timm", "numpy", "scikit-learn")
    return {"device": run.runtime.device.type, "threads": torch.get_num_threads(), **{n: _version(n) for n in names}}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def check_unchanged(run: Run, content: str) -> None:
    """Raises DataError for other images and WeightsError for other pretrained weights than those the run began with.

    Another device, number of threads or version is said: numbers are then rounded otherwise.
    """
    assert run.unfinished is not None
    before, folder = run.unfinished.facts, run.unfinished.folder
    if not before:
        return
    if before.get("content") != content:
        raise DataError(f"{run.config.data}: not the images that the run in {folder} began with; start a new run")
    if before.get("weights") != run.weights.sha256:
        raise WeightsError(f"{run.weights.source}: not the weights that the run in {folder} began with")
    if before.get("teacher", teacher := _teacher(run)) != teacher:
        raise WeightsError(f"{_teacher_folder(run)}: not the teacher that the run in {folder} began with")
    old, new = before.get("surroundings"), _surroundings(run)
    if old == new and before.get("network", network := _network(run)) != network:
        raise WeightsError(
            f"{run.config.model}: its config.json describes another network than that which the run in {folder} began "
            "with; bring that file back, or start a new run"
        )
    if isinstance(old, dict) and old != new:
        other = ", ".join(f"{name} {old.get(name)} then, {new[name]} now" for name in new if old.get(name) != new[name])
        run.reporter.message(f"{other}: the weights may differ in the last digits from those of an uninterrupted run")

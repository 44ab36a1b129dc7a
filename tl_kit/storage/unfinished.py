"""Unfinished runs: opening a run that ended early, so that it can be resumed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tl_kit.errors import CheckpointError
from tl_kit.reporting import Reporter
from tl_kit.storage.atomic import remove_leftovers
from tl_kit.storage.checkpoint import META
from tl_kit.storage.ensemble_folder import is_ensemble
from tl_kit.storage.lock import FolderLock
from tl_kit.storage.metrics_log import JOURNAL
from tl_kit.storage.saved_states import STATE, StateFolder
from tl_kit.untrusted import read_json

__all__ = [
    "UNFINISHED",
    "Unfinished",
    "facts_of_run",
    "follow_unfinished",
    "is_unfinished",
    "open_unfinished",
    "read_run",
]


UNFINISHED = ("running", "interrupted")


@dataclass(frozen=True)
class Unfinished:
    """A run that ended early. ``facts``: its settled choices, empty if it was killed before it recorded them.

    ``state`` is None if nothing was saved; the run then starts over, in the same folder. The lock is held; of several
    processes, by the first, and the others have None.
    """

    folder: Path
    lock: FolderLock | None
    facts: Mapping[str, Any]
    state: Mapping[str, Any] | None

    def settled(self, name: str) -> str | None:
        """A choice that the run had settled, by its name; None where it had not, or records none that is a text."""
        found = self.facts.get(name)
        return found if isinstance(found, str) else None

    @property
    def has_chosen(self) -> bool:
        """True where the run had made its choices: the policy is the last of them that it records."""
        return self.settled("policy") is not None

    def saved(self, name: str) -> Mapping[str, Any]:
        """A part of the saved state, by its name; empty where nothing was saved.

        Raises CheckpointError for a state without it.
        """
        found = {} if self.state is None else self.state.get(name)
        if not isinstance(found, Mapping):
            raise CheckpointError(f"{self.folder}: its saved state has no {name}; remove it, and --resume starts over")
        return found


def open_unfinished(folder: Path, lock: FolderLock, reporter: Reporter) -> Unfinished:
    """Remove half-written files, and read the last intact state; ``lock`` is the lock of the folder.

    Raises CheckpointError if states were saved and none can be read.
    """
    states = StateFolder(folder)
    remove_leftovers(folder)
    states.clean()
    state, notes = states.load(drop=True)
    for note in notes:
        reporter.message(f"{note}; the state before it is used")
    (folder / JOURNAL).unlink(missing_ok=True)  # written again, up to the position of the state
    return Unfinished(folder, lock, facts_of_run(folder), state)


def facts_of_run(folder: Path) -> Mapping[str, Any]:
    """The settled choices of a run that ended early, as its record has them; empty without any."""
    found = read_run(folder).get("resume") if (folder / META).is_file() else None
    return found if isinstance(found, dict) else {}


def follow_unfinished(started: Unfinished) -> Unfinished:
    """The same run as the first process has opened it, for the others: its state is read, and nothing is written."""
    state, _ = StateFolder(started.folder).load()
    return replace(started, lock=None, facts=facts_of_run(started.folder), state=state)


def read_run(folder: Path) -> dict[str, Any]:
    """The content of a run's ``tlkit.json``. Raises CheckpointError if it is missing, or not a JSON object."""
    if not (folder / META).is_file():
        raise CheckpointError(f"--resume {folder}: {_no_run(folder)}")
    return read_json(folder / META, error=CheckpointError)


def _no_run(folder: Path) -> str:
    """The reason why a folder without ``tlkit.json`` cannot be resumed, with the remedy."""
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
    """True if the folder contains a run that ended early, which ``--resume`` can continue."""
    try:
        return any((folder / STATE).glob("*.json")) or read_run(folder).get("status") in UNFINISHED
    except CheckpointError:
        return False

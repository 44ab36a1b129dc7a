"""Folders that tl-kit wrote: runs, folds, members, ensembles, demonstrations. Their pictures are no data."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["DEMO", "MARKS", "is_own_output"]

DEMO = "tlkit-demo.json"
MARKS = ("tlkit.json", "ensemble.json", DEMO)
"""Files by which a folder is known, whatever else lies in it."""

# What may lie beside the runs in a folder of several. Users may have files of these names too, but no runs beside them.
_BESIDE = {"folds.json", "members.json", "out_of_fold.csv", "suspects.csv", "receipt.png"}
_STATE = "state"
_STATE_ENDINGS = (".json", ".safetensors")


def is_own_output(folder: Path) -> bool:
    """Whether tl-kit wrote this folder, or it holds nothing but folders that tl-kit wrote.

    Hidden files do not count, nor do empty folders beside such folders. A folder that holds any other file is a user's,
    whatever its name.
    """
    return _kind(str(folder)) == "own"


def _kind(folder: str) -> str:
    """ "own", "empty", or "other"."""
    if any(os.path.isfile(os.path.join(folder, mark)) for mark in MARKS):
        return "own"
    inner = []
    try:
        for name in os.listdir(folder):
            path = os.path.join(folder, name)
            if name.startswith("."):
                continue
            if os.path.isdir(path) and not os.path.islink(path):
                inner.append(path)
            elif name not in _BESIDE:
                return "other"
    except OSError:
        return "other"
    kinds = {"own" if os.path.basename(path) == _STATE and _is_state(path) else _kind(path) for path in inner}
    if "other" in kinds:
        return "other"
    return "own" if "own" in kinds else "empty"


def _is_state(folder: str) -> bool:
    """The saved states of an unfinished run, or the records of several."""
    try:
        names = [name for name in os.listdir(folder) if not name.startswith(".")]
    except OSError:
        return False
    return bool(names) and all(name.endswith(_STATE_ENDINGS) for name in names)

"""Own output: folders written by tl-kit (runs, members, ensembles, demonstrations, cache), which are not data."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["DEMO", "MARKS", "is_own_output"]

DEMO = "tlkit-demo.json"
MARKS = ("tlkit.json", "ensemble.json", "fit.json", DEMO)
"""Files that identify a folder, whatever else it contains."""

# Files that may be beside the runs in a folder of several; any .json too. Users may have such files, but without runs.
_BESIDE = {"out_of_fold.csv", "suspects.csv", "receipt.png"}
_SHARD = re.compile(r"[0-9]+-[0-9a-f]{12}\.npy")  # of the cache of features
_DEEPEST = 8  # nested folders, of which only the last contains tl-kit's output
_STATE = "state"
_STATE_ENDINGS = (".json", ".pt")


def is_own_output(folder: Path) -> bool:
    """True if tl-kit wrote this folder, or if it contains nothing but folders that tl-kit wrote.

    Hidden files do not count, nor do empty folders beside such folders. A folder that contains any other file is the
    user's, whatever its name.
    """
    return _kind(folder) == "own"


def _kind(folder: Path, *, deepest: int = _DEEPEST) -> str:
    """ "own", "empty", or "other"."""
    if any((folder / mark).is_file() for mark in MARKS):
        return "own"
    if deepest == 0:
        return "other"
    inner, cached = [], False
    try:
        for path in folder.iterdir():
            if path.name.startswith("."):
                continue
            if path.is_dir() and not path.is_symlink():
                inner.append(path)
            elif _SHARD.fullmatch(path.name):
                cached = True
            elif path.suffix != ".json" and path.name not in _BESIDE:
                return "other"
    except OSError:
        return "other"
    kinds = {"own" if path.name == _STATE and _is_state(path) else _kind(path, deepest=deepest - 1) for path in inner}
    if "other" in kinds:
        return "other"
    return "own" if cached or "own" in kinds else "empty"


def _is_state(folder: Path) -> bool:
    """True for the saved states of an unfinished run, or the records of several runs."""
    try:
        names = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError:
        return False
    return bool(names) and all(name.endswith(_STATE_ENDINGS) for name in names)

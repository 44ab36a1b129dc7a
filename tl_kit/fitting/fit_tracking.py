"""Tracking of a fit: its steps, its leaderboard and its result."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tl_kit.fitting.fit_result import FitResult
from tl_kit.fitting.journal import Entry
from tl_kit.storage.ensemble_folder import PICTURE
from tl_kit.tracking.tables import ScoreTable, final_scalars, score_table
from tl_kit.tracking.trackers import Tracking

__all__ = ["track_fit", "track_step"]

_COLUMNS = ("step", "network", "what", "policy", "status", "seconds", "val accuracy", "val nll", "ensemble val nll")


def track_step(tracking: Tracking, entry: Entry, *, number: int) -> None:
    """Send a finished step's validation scores and time, and the NLL of the best ensemble after it."""
    val = None if entry.trained is None else entry.trained.result.val
    scores = {f"step/val_{name}": value for name, value in (val or {}).items() if name in ("accuracy", "nll")}
    together = entry.attempt.together
    best = {"ensemble/val_nll": float(together.mean())} if together.size else {}
    tracking.scalars({**scores, **best, "step/seconds": entry.seconds}, step=number)


def track_fit(tracking: Tracking, result: FitResult) -> None:
    """Send the leaderboard, the result's final scores with their kinds, and the pictures.

    Validation scores of steps and of the result are too good as estimates, as docs/fit.md says.
    """
    kinds = {"val": "selected on", "test": "test"}
    scores: dict[str, Mapping[str, float] | None] = {"val": result.val, "test": _numbers(result.test)}
    step = len(result.leaderboard)
    rows = [
        (
            f"{row.name}{' (in the result)' if row.chosen else ''}",
            row.network,
            row.what,
            row.policy,
            row.status,
            *("" if value is None else value for value in (row.seconds, row.accuracy, row.nll, row.together)),
        )
        for row in result.leaderboard
    ]
    tracking.scalars(final_scalars(scores, kinds), step=step)
    tracking.table(ScoreTable("leaderboard", _COLUMNS, tuple(rows)), step=step)
    tracking.table(score_table(scores, kinds), step=step)
    tracking.pictures({"leaderboard": Path(result.picture), "receipt": Path(result.best) / PICTURE}, step=step)


def _numbers(test: Mapping[str, object] | None) -> dict[str, float] | None:
    """The scores among what the result says of the test images."""
    found = {name: value for name, value in (test or {}).items() if isinstance(value, float)}
    return found or None

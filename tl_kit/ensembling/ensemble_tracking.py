"""Tracking of an ensemble: its options, the scores of members and ensemble, and its receipt."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tl_kit.combining.receipt import Receipt
from tl_kit.config import EnsembleConfig
from tl_kit.machine.runtime import detect
from tl_kit.options_file import named_values
from tl_kit.reporting import Reporter
from tl_kit.storage.ensemble_folder import PICTURE
from tl_kit.tracking.openings import names_in
from tl_kit.tracking.tables import ScoreTable, final_scalars, score_table
from tl_kit.tracking.trackers import track

__all__ = ["track_ensemble"]

_SHOWN = ("accuracy", "nll", "ece")


def track_ensemble(config: EnsembleConfig, receipt: Receipt, folder: Path, reporter: Reporter) -> None:
    """Send a finished ensemble to the trackers of ``config``."""
    if not names_in(config.tracking):
        return
    cpu = detect(config.runtime).device.type == "cpu"
    scores: dict[str, Mapping[str, float] | None] = {
        split: values for split, values in receipt["ensemble"].items() if values is None or isinstance(values, dict)
    }
    with track(config.tracking, folder, cpu=cpu, reporter=reporter) as tracking:
        settled = {"rule": receipt["rule"], **{f"rule.{name}": value for name, value in receipt["parameters"].items()}}
        tracking.configure({**named_values(config), **settled})
        tracking.scalars(final_scalars(scores, receipt["kinds"]), step=0)
        tracking.table(_members(receipt), step=0)
        tracking.table(score_table(scores, receipt["kinds"]), step=0)
        tracking.pictures({"receipt": folder / PICTURE}, step=0)


def _members(receipt: Receipt) -> ScoreTable:
    """The scores of members and ensemble, a row for each; the kind of each score is in the column beside it."""
    splits = [split for split in ("val", "test") if receipt["ensemble"][split] is not None]
    columns = [column for split in splits for column in (*(f"{split} {name}" for name in _SHOWN), f"{split} kind")]
    rows = []
    for name, row, kinds in (
        *((member["checkpoint"], member, member["kinds"]) for member in receipt["members"]),
        (f"ensemble ({receipt['rule']})", receipt["ensemble"], receipt["kinds"]),
    ):
        cells: list[str | float] = [name]
        for split in splits:
            values = row[split]  # type: ignore[literal-required]
            cells += [*(values[score] for score in _SHOWN), kinds.get(split, "unknown")]
        rows.append(tuple(cells))
    return ScoreTable("members", ("", *columns), tuple(rows))

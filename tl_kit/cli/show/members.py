"""Output of ``tlkit finetune`` for an ensemble's members, from ``--members`` or saved by one run."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tl_kit.cli.cells import figure
from tl_kit.cli.console import Console
from tl_kit.display import marked

if TYPE_CHECKING:
    from tl_kit import FinetuneResult, MemberRuns

__all__ = ["show_members", "show_snapshots"]

SHOWN = ("accuracy", "nll")


def show_members(runs: MemberRuns, console: Console, *, json: bool) -> None:
    """Show one JSON object, or a table of the members and the command that combines them."""
    if json:
        console.notes(runs.notes, json=True)
        console.json(runs.to_dict())
        return
    rows = [
        [Path(m.checkpoint).name, m.varied, f"{m.images['train']:,}", *_scores(m.val, m.test), f"{m.seconds:.1f} s"]
        for m in runs.members
    ]
    header = _header([member.kinds for member in runs.members])
    console.table(["", "varied", "images", *header, "time"], rows, align="llr" + "r" * 2 * len(SHOWN) + "r")
    console.line()
    console.notes(runs.notes, json=False)
    console.line(f"time: {runs.seconds['total']:.1f} s")
    console.entry("members", str(runs.folder))
    console.entry("combine them", runs.command)


def show_snapshots(result: FinetuneResult, console: Console) -> None:
    """Show the checkpoints saved during the run, and the commands that combine them; nothing if there are none."""
    if not result.snapshots:
        return
    rows = [[Path(s.checkpoint).name, f"{s.step:,}", *_scores(s.val, s.test)] for s in result.snapshots]
    console.line()
    header = _header([snapshot.kinds for snapshot in result.snapshots])
    console.table(["", "step", *header], rows, align="lr" + "r" * 2 * len(SHOWN))
    console.line()
    kinds = Counter(Path(s.checkpoint).name.partition("-")[0] for s in result.snapshots)
    for kind, count in kinds.items():
        if count > 1:
            console.entry("combine them", f"tlkit ensemble {shlex.quote(result.checkpoint)}/{kind}-*")


def _header(kinds: Sequence[Mapping[str, str]]) -> list[str]:
    return [f"{marked(split, kinds)} {name}" for split in ("val", "test") for name in SHOWN]


def _scores(*splits: Mapping[str, float] | None) -> list[str]:
    return ["" if scores is None else figure(name, scores[name]) for scores in splits for name in SHOWN]

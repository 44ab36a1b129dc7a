"""Facts of a report: everything that the page says, collected from the result's records and its scored images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tl_kit.config import ReportLimits
from tl_kit.data.findings import Finding
from tl_kit.data.manifest import OWN, UNMISSED
from tl_kit.display import marked, visible
from tl_kit.report_page.advice import Advice, advise
from tl_kit.report_page.charts import Chart
from tl_kit.report_page.computed import compute, tables
from tl_kit.report_page.figures import Figure, Record, percent, plain
from tl_kit.report_page.galleries import Gallery
from tl_kit.report_page.places import Worth
from tl_kit.report_page.report_charts import cost_chart, curve_charts
from tl_kit.report_page.saved_results import Saved
from tl_kit.report_page.scored import Scored
from tl_kit.report_page.settings_tables import (
    choices,
    combination,
    disagreements,
    facts_of_run,
    leaderboard,
    member_rows,
)
from tl_kit.report_page.wording import headline, images_figure, left_classes, receipt_lines, scored_text
from tl_kit.score_kinds import notes_on

__all__ = ["Facts", "Looks", "collect"]

SCORES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "nll": "NLL",
    "brier": "Brier",
    "ece": "ECE",
}
_PERCENT = ("accuracy", "balanced_accuracy", "macro_f1", "ece")
_NAMES = {"run": "run", "ensemble": "ensemble", "folds": "cross-validation", "fit": "fit"}


@dataclass(frozen=True, kw_only=True)
class Looks:
    """Images and maps: galleries by id, pairs, the worth of the maps, and sentences about what is missing."""

    galleries: tuple[Gallery, ...] = ()
    pairs: tuple[Gallery, ...] = ()
    worth: Worth | None = None
    notes: tuple[str, ...] = ()

    @property
    def has_maps(self) -> bool:
        """True if a map stands beside an image."""
        return any(tile.map for gallery in (*self.galleries, *self.pairs) for tile in gallery.tiles)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Content of the page. ``computed`` is the JSON inside the page: it holds all figures that no file of the run has.

    ``on``: the split of the members' scores, with the mark ``*`` where they are too good as an estimate.
    """

    saved: Saved
    what: str
    headline: tuple[Figure | str, ...]
    honest: bool
    advice: tuple[Advice, ...]
    score_names: tuple[str, ...]
    scores: tuple[tuple[str, str, Figure | None, tuple[Figure | None, ...]], ...]
    notes: tuple[str, ...]
    scored: str
    rows: tuple[tuple[str, tuple[Figure | None, ...], tuple[str, str]], ...] = ()
    matrix: tuple[tuple[str, ...], tuple[tuple[Figure | None, ...], ...]] = ((), ())
    matrix_left: int = 0
    classes_left: str = ""
    calibration: tuple[Chart, ...] = ()
    trial: tuple[Figure | None, ...] = ()
    answered: Chart | None = None
    answered_rows: tuple[tuple[Figure | None, ...], ...] = ()
    looks: Looks = Looks()
    shortcuts: tuple[Finding, ...] = ()
    examined: str = ""
    left_out: tuple[tuple[str, str], ...] = ()
    left_out_more: int = 0
    curves: tuple[Chart, ...] = ()
    on: str = ""
    members: tuple[Any, ...] = ()
    disagreements: tuple[list[Figure | None], ...] = ()
    cost: Chart | None = None
    receipt_lines: tuple[str, ...] = ()
    rule: tuple[tuple[str, Figure | str], ...] = ()
    runs: tuple[tuple[str, list[Any], list[Any]], ...] = ()
    leaderboard: tuple[Any, ...] = ()
    story: tuple[str, ...] = ()
    computed: dict[str, Any] = field(default_factory=dict)


def collect(
    saved: Saved,
    scored: Scored | None,
    *,
    missing: str,
    looks: Looks,
    findings: Sequence[Finding],
    examined: str,
    suspects: int,
    limits: ReportLimits,
    names: bool,
) -> Facts:
    """Collect the facts. ``missing``: why no image was scored; ``names`` False: no file is named."""
    saved = _with_known_kinds(saved, scored)
    made = compute(scored, limits)
    report = Record("report", made.content)
    sentence, honest = headline(saved, report, made.content)
    extra = {} if scored is None else tables(report, made.rows)
    left = _left_out(saved, scored)
    shown = [(visible(path) if names else "a file", visible(reason)) for path, reason in left[: limits.left_out]]
    return Facts(
        saved=saved,
        what=_NAMES[saved.kind],
        headline=sentence,
        honest=honest,
        advice=tuple(advise(saved, made, suspects=suspects, findings=findings, limits=limits)),
        score_names=tuple(SCORES.values()),
        scores=tuple(
            (
                visible(marked(split.name, [saved.kinds])),
                split.kind,
                images_figure(saved, split),
                tuple(saved.record.figure(*split.path, name, shape=_shape(name)) for name in SCORES),
            )
            for split in saved.splits
        ),
        notes=tuple(notes_on([saved.kinds], saved.chosen, cross_validated=saved.kind == "folds")),
        scored=missing if scored is None else scored_text(scored),
        classes_left="" if scored is None else left_classes(saved, scored, shown=len(made.rows)),
        looks=looks,
        shortcuts=tuple(one for one in findings if one.code.endswith("-shortcut")),
        examined=examined,
        curves=tuple(curve_charts(saved)),
        on=visible(marked(saved.splits[0].name, [saved.kinds])) if saved.splits else "",
        members=tuple(member_rows(saved)),
        disagreements=tuple(disagreements(saved)),
        cost=cost_chart(saved),
        receipt_lines=tuple(receipt_lines(saved)),
        rule=tuple(combination(saved)),
        runs=tuple((visible(run.name), facts_of_run(run), choices(run)) for run in saved.runs),
        leaderboard=tuple(leaderboard(saved)),
        story=tuple(visible(line) for line in saved.record.listed("story")),
        left_out=tuple(shown),
        left_out_more=len(left) - len(shown),
        computed=made.content,
        **extra,
    )


def _with_known_kinds(saved: Saved, scored: Scored | None) -> Saved:
    """The saved result. A kind of scores that its record lacks is filled in, once the same images have been scored."""
    if scored is None or not scored.own:
        return saved
    splits = (
        replace(split, kind=scored.kind) if (split.name, split.kind) == (scored.split, "unknown") else split
        for split in saved.splits
    )
    return replace(saved, splits=tuple(splits))


def _left_out(saved: Saved, scored: Scored | None) -> list[tuple[str, str]]:
    """Path and reason of each file that could not be used, as it is now or else as the run recorded it."""
    if scored is not None and scored.manifest is not None:
        return [(str(one.path), one.reason) for one in scored.left_out if one.reason not in (*UNMISSED, OWN)]
    rows = [(run, place) for run in saved.runs for place in range(len(run.listed("left_out", of=dict)))]
    names = [(run.text("left_out", place, "path"), run.text("left_out", place, "reason")) for run, place in rows]
    return list(dict.fromkeys(names))


def _shape(name: str) -> Any:
    return percent if name in _PERCENT else plain

"""Facts of a report: everything that the page says, collected from the result's records and its scored images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tl_kit import metrics
from tl_kit.combining.receipt import Receipt
from tl_kit.config import ReportLimits
from tl_kit.data.findings import Finding
from tl_kit.data.manifest import OWN, UNMISSED
from tl_kit.display import HONEST, visible
from tl_kit.report_page.advice import Advice, advise
from tl_kit.report_page.charts import Chart
from tl_kit.report_page.class_tables import Bin, ClassRow, answered, class_rows, most_confused, reliability
from tl_kit.report_page.figures import Figure, Record, count, percent, plain
from tl_kit.report_page.galleries import Gallery
from tl_kit.report_page.places import Worth
from tl_kit.report_page.report_charts import answered_chart, cost_chart, curve_charts, reliability_chart
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
from tl_kit.reports.sentences import findings as receipt_findings
from tl_kit.reports.sentences import verdict
from tl_kit.score_kinds import notes_on, what_chose

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


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Content of the page. ``computed`` is the JSON inside the page, of which all figures not from files are."""

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
    computed = _computed(scored, limits)
    report = Record("report", computed)
    rows = [] if scored is None else class_rows(scored.probabilities, scored.labels, scored.classes)
    first = saved.splits[0] if saved.splits else None
    accuracy = None if scored is None else metrics.accuracy(scored.probabilities, scored.labels)
    headline, honest = _headline(saved, report, computed)
    extra = {} if scored is None else _of_images(report, rows, limits)
    left = _left_out(saved, scored)
    shown = [(visible(path) if names else "a file", visible(reason)) for path, reason in left[: limits.left_out]]
    return Facts(
        saved=saved,
        what=_NAMES[saved.kind],
        headline=headline,
        honest=honest,
        advice=tuple(advise(saved, rows=rows, accuracy=accuracy, suspects=suspects, findings=findings)),
        score_names=tuple(SCORES.values()),
        scores=tuple(
            (
                visible(split.name),
                split.kind,
                _images_figure(saved, split.images, split.name),
                tuple(saved.record.figure(*split.path, name, shape=_shape(name)) for name in SCORES),
            )
            for split in saved.splits
        ),
        notes=tuple(_notes(saved)),
        scored=missing if scored is None else _scored_text(scored, first is not None),
        looks=looks,
        shortcuts=tuple(one for one in findings if one.code.endswith("-shortcut")),
        examined=examined,
        curves=tuple(curve_charts(saved)),
        members=tuple(member_rows(saved)),
        disagreements=tuple(disagreements(saved)),
        cost=cost_chart(saved),
        receipt_lines=tuple(_receipt_lines(saved)),
        rule=tuple(combination(saved)),
        runs=tuple((visible(run.name), facts_of_run(run), choices(run)) for run in saved.runs),
        leaderboard=tuple(leaderboard(saved)),
        story=tuple(visible(line) for line in saved.record.at("story") or () if isinstance(line, str)),
        left_out=tuple(shown),
        left_out_more=len(left) - len(shown),
        computed=computed,
        **extra,
    )


def _left_out(saved: Saved, scored: Scored | None) -> list[tuple[str, str]]:
    """Path and reason of each file that could not be used, as it is now or else as the run recorded it."""
    if scored is not None and scored.manifest is not None:
        return [(str(one.path), one.reason) for one in scored.left_out if one.reason not in (*UNMISSED, OWN)]
    rows = [row for record in saved.runs for row in record.at("left_out") or () if isinstance(row, dict)]
    return list(dict.fromkeys((str(row.get("path")), str(row.get("reason"))) for row in rows))


def _shape(name: str) -> Any:
    return percent if name in _PERCENT else plain


def _images_figure(saved: Saved, images: int | None, split: str) -> Figure | None:
    if images is None:
        return None
    for path in (("images",), ("images", split), ("data", "images", split), ("receipt", "images", split)):
        if saved.record.at(*path) == images:
            return saved.record.figure(*path, shape=count)
    return None


def _computed(scored: Scored | None, limits: ReportLimits) -> dict[str, Any]:
    """Everything that the report computes from predictions, as JSON."""
    if scored is None:
        return {}
    after, labels = scored.probabilities, scored.labels
    found: dict[str, Any] = {
        "split": scored.split,
        "kind": scored.kind,
        "images": len(labels),
        "scores": metrics.summary(after, labels),
        "classes": list(scored.classes),
        "confusion": metrics.confusion(after, labels),
        "per_class": [asdict(row) for row in class_rows(after, labels, scored.classes)],
        "reliability": {"after": [asdict(one) for one in reliability(after, labels, bins=limits.bins)]},
        "answered": [list(row) for row in answered(after, labels, points=limits.points)],
        "temperature": scored.temperature,
    }
    if scored.before is not None:
        found["reliability"]["before"] = [asdict(one) for one in reliability(scored.before, labels, bins=limits.bins)]
    elif scored.trial is not None:
        found["reliability"]["trial"] = [asdict(one) for one in reliability(scored.trial, labels, bins=limits.bins)]
        found["trial_scores"] = metrics.summary(scored.trial, labels)
    found["interval"] = list(metrics.wilson(found["scores"]["accuracy"], len(labels)))
    return found


def _headline(saved: Saved, report: Record, computed: dict[str, Any]) -> tuple[tuple[Figure | str, ...], bool]:
    """The result in one sentence, of texts and figures; whether it is an estimate for new images."""
    split = saved.splits[0] if saved.splits else None
    if split is not None:
        accuracy = saved.record.figure(*split.path, "accuracy", shape=percent)
        images, kind, name = split.images, split.kind, split.name
        many: Figure | str = _images_figure(saved, images, name) or (count(images) if images else "")
        low_high = None
        if accuracy is not None and images:
            low, high = metrics.wilson(accuracy.value, images)
            computed["headline_interval"] = [low, high]
            low_high = [report.figure("headline_interval", place, shape=percent) for place in (0, 1)]
    elif computed:
        accuracy = report.figure("scores", "accuracy", shape=percent)
        many, kind, name = report.figure("images", shape=count) or "", computed["kind"], computed["split"]
        low_high = [report.figure("interval", place, shape=percent) for place in (0, 1)]
    else:
        return ("This result has no scores yet.",), False
    if accuracy is None:
        return ("This result has no accuracy on record.",), False
    parts: list[Figure | str] = [accuracy, " of the "]
    parts += [many, " "] if many else []
    parts.append(f"{_image_word(name)} images are classified right")
    if low_high is not None and all(low_high):
        parts += [" (95\u00a0% interval ", *(each for each in (low_high[0], " to ", low_high[1]) if each), ")"]
    chose = saved.record.at("chosen_by_val") or (
        saved.record.at(*saved.receipt, "chosen_by_val") if saved.receipt else ()
    )
    parts.append(f"; {_kind_text(kind, [one for one in chose or () if isinstance(one, str)])}.")
    return tuple(parts), kind in HONEST


def _image_word(split: str) -> str:
    return {"val": "validation", "all": "labelled"}.get(split, visible(split) if split != "out of fold" else "scored")


def _kind_text(kind: str, chose: Sequence[str]) -> str:
    return {
        "test": "none of them had a part in the model, so this is an estimate for new images like these",
        "out of fold": "each was scored by a model in which it had no part, so this is an estimate for one such model",
        "selected on": f"they chose {what_chose(chose)}, so this is too good as an estimate for new images",
        "trained on": "the model was trained on them, so this says nothing about new images",
        "mixed": "some of them had a part in the model, so this is too good as an estimate for new images",
    }.get(kind, "it is not recorded whether the model has seen them")


def _notes(saved: Saved) -> list[str]:
    kinds = {split.name: split.kind for split in saved.splits}
    chose = saved.record.at("chosen_by_val") or (
        saved.record.at(*saved.receipt, "chosen_by_val") if saved.receipt else ()
    )
    return notes_on(
        [kinds], [one for one in chose or () if isinstance(one, str)], cross_validated=saved.kind == "folds"
    )


def _scored_text(scored: Scored, recorded: bool) -> str:
    images = count(len(scored.labels))
    if scored.models is not None:
        return f"What follows is of all {images} images, each as the model predicted it that had not seen it."
    text = f"What follows is of the {images} {_image_word(scored.split)} images, predicted anew for this report"
    return f"{text}; {_kind_text(scored.kind, scored.predictor.uses.chose if scored.predictor else ())}."


def _of_images(report: Record, rows: Sequence[ClassRow], limits: ReportLimits) -> dict[str, Any]:
    """Tables and charts of the scored images."""
    content = report.content
    shown = most_confused(content["confusion"], limits.matrix)
    table = tuple(tuple(report.figure("confusion", row, column, shape=count) for column in shown) for row in shown)
    class_table = tuple(
        (
            visible(row.name),
            tuple(
                report.figure("per_class", place, name, shape=shape)
                for name, shape in (("recall", percent), ("precision", percent), ("f1", percent), ("support", count))
            ),
            (_interval(row.recall_interval), _interval(row.precision_interval)),
        )
        for place, row in enumerate(rows)
    )
    charts = []
    tempers = "before" in content["reliability"]
    for moment, title in (
        ("before", "Reliability before the temperature"),
        ("after", "Reliability after the temperature" if tempers else "Reliability, without a temperature"),
        ("trial", "Reliability with a temperature that other images would choose"),
    ):
        if moment in content["reliability"]:
            charts.append(reliability_chart([Bin(**one) for one in content["reliability"][moment]], title=title))
    curve = [(share, accuracy, least) for share, accuracy, least in content["answered"]]
    picked = _picked(curve)
    return {
        "rows": class_table,
        "matrix": (tuple(visible(content["classes"][place]) for place in shown), table),
        "matrix_left": len(content["classes"]) - len(shown),
        "calibration": tuple(charts),
        "trial": tuple(
            report.figure(scores, name, shape=shape)
            for name, shape in (("nll", plain), ("ece", percent))
            for scores in ("scores", "trial_scores")
        )
        if "trial_scores" in content
        else (),
        "answered": answered_chart(curve),
        "answered_rows": tuple(
            tuple(report.figure("answered", place, column, shape=percent) for column in range(3)) for place in picked
        ),
    }


def _picked(curve: Sequence[tuple[float, float, float]]) -> list[int]:
    """The rows nearest to a half, three quarters, nine tenths and all of the images answered."""
    wanted = (0.5, 0.75, 0.9, 1.0)
    near = [min(range(len(curve)), key=lambda place: abs(curve[place][0] - share)) for share in wanted]
    return list(dict.fromkeys(near))


def _interval(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"{100 * interval[0]:.0f} to {100 * interval[1]:.0f}\u00a0%"


def _receipt_lines(saved: Saved) -> list[str]:
    """The receipt in sentences; none if it was changed so that they cannot be said."""
    if saved.receipt is None:
        return []
    receipt: Receipt = saved.record.at(*saved.receipt)
    try:
        return [visible(line) for line in (verdict(receipt), *receipt_findings(receipt))]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        return []

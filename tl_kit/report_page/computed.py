"""Computed figures of a report: what it computes from predictions, as the JSON that stands in the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tl_kit import metrics
from tl_kit.config import ReportLimits
from tl_kit.display import visible
from tl_kit.report_page.charts import Chart
from tl_kit.report_page.class_tables import (
    Bin,
    ClassRow,
    answered,
    class_rows,
    confusion_of,
    most_confused,
    reliability,
    weak_classes,
)
from tl_kit.report_page.figures import Figure, Record, count, percent, plain
from tl_kit.report_page.report_charts import answered_chart, reliability_chart
from tl_kit.report_page.scored import Scored

__all__ = ["Computed", "compute", "tables"]


@dataclass(frozen=True, kw_only=True)
class Computed:
    """Figures of the scored images: ``content`` is JSON, ``rows`` the classes shown, in their order.

    ``weak``: the classes that are worse than the others beyond chance, the most valuable first, of ``weak_total``.
    """

    content: dict[str, Any]
    rows: tuple[ClassRow, ...] = ()
    weak: tuple[ClassRow, ...] = ()
    weak_total: int = 0


_NAMED = 5  # classes of which no image was scored


def compute(scored: Scored | None, limits: ReportLimits) -> Computed:
    """Compute everything from predictions; without scored images, nothing.

    Of many classes those with most errors are in the tables, so that the page stays small.
    """
    if scored is None:
        return Computed(content={})
    after, labels, predicted = scored.probabilities, scored.labels, scored.predicted
    matrix = most_confused(labels, predicted, classes=len(scored.classes), most=limits.matrix)
    weak = weak_classes(labels, predicted, classes=len(scored.classes), rate=limits.false_weak)
    places = set(most_confused(labels, predicted, classes=len(scored.classes), most=limits.classes))
    shown = sorted(places.union(weak[: limits.weak]))
    rows = dict(zip(shown, class_rows(after, labels, scored.classes, shown), strict=True))
    found: dict[str, Any] = {
        "split": scored.split,
        "kind": scored.kind,
        "own": scored.own,
        "images": len(labels),
        "scores": metrics.summary(after, labels),
        "classes": len(scored.classes),
        "confusion_classes": [scored.classes[place] for place in matrix],
        "confusion": confusion_of(labels, predicted, matrix),
        "per_class": [asdict(row) for row in rows.values()],
        "reliability": {"after": [asdict(one) for one in reliability(after, labels, bins=limits.bins)]},
        "answered": [list(row) for row in answered(after, labels, points=limits.points)],
        "temperature": scored.temperature,
    }
    if scored.before is not None:
        found["reliability"]["before"] = [asdict(one) for one in reliability(scored.before, labels, bins=limits.bins)]
    elif scored.trial is not None:
        found["reliability"]["trial"] = [asdict(one) for one in reliability(scored.trial, labels, bins=limits.bins)]
        found["trial_scores"] = metrics.summary(scored.trial, labels)
    support = np.bincount(labels, minlength=len(scored.classes))
    absent = np.flatnonzero(support == 0)
    found["unscored"] = {"classes": len(absent), "first": [scored.classes[place] for place in absent[:_NAMED]]}
    commonest = int(support.argmax())
    found["commonest"] = {"name": scored.classes[commonest], "share": float(support[commonest] / len(labels))}
    found["interval"] = list(metrics.wilson(found["scores"]["accuracy"], len(labels)))
    return Computed(
        content=found,
        rows=tuple(rows.values()),
        weak=tuple(rows[place] for place in weak[: limits.weak]),
        weak_total=len(weak),
    )


def tables(report: Record, rows: Sequence[ClassRow]) -> dict[str, Any]:
    """Tables and charts of the scored images; ``report`` holds what was computed."""
    content = report.content
    many = range(len(content["confusion"]))
    table = tuple(tuple(report.figure("confusion", row, column, shape=count) for column in many) for row in many)
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
    curve = [(share, accuracy, least) for share, accuracy, least in content["answered"]]
    return {
        "rows": class_table,
        "matrix": (tuple(map(visible, content["confusion_classes"])), table),
        "matrix_left": content["classes"] - len(many),
        "calibration": tuple(_calibration(content["reliability"])),
        "trial": _trial(report),
        "answered": answered_chart(curve),
        "answered_rows": tuple(
            tuple(report.figure("answered", place, column, shape=percent) for column in range(3))
            for place in _picked(curve)
        ),
    }


def _calibration(content: dict[str, Any]) -> list[Chart]:
    after = "Reliability after the temperature" if "before" in content else "Reliability, without a temperature"
    titles = {
        "before": "Reliability before the temperature",
        "after": after,
        "trial": "Reliability with a temperature that other images would choose",
    }
    return [
        reliability_chart([Bin(**one) for one in content[moment]], title=title)
        for moment, title in titles.items()
        if moment in content
    ]


def _trial(report: Record) -> tuple[Figure | None, ...]:
    if "trial_scores" not in report.content:
        return ()
    return tuple(
        report.figure(scores, name, shape=shape)
        for name, shape in (("nll", plain), ("ece", percent))
        for scores in ("scores", "trial_scores")
    )


def _picked(curve: Sequence[tuple[float, float, float]]) -> list[int]:
    """The rows nearest to a half, three quarters, nine tenths and all of the images answered."""
    wanted = (0.5, 0.75, 0.9, 1.0)
    near = [min(range(len(curve)), key=lambda place: abs(curve[place][0] - share)) for share in wanted]
    return list(dict.fromkeys(near))


def _interval(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"{100 * interval[0]:.0f} to {100 * interval[1]:.0f} %".replace(" ", "\u00a0")

"""The report's charts: reliability, accuracy against the share answered, learning curves, cost against gain."""

from __future__ import annotations

from collections.abc import Sequence

from tl_kit.display import marked, visible
from tl_kit.report_page.charts import Chart, Series, chart
from tl_kit.report_page.class_tables import Bin
from tl_kit.report_page.figures import Record, percent
from tl_kit.report_page.saved_results import Saved
from tl_kit.reports.learning_curves import curve_data

__all__ = ["answered_chart", "cost_chart", "curve_charts", "reliability_chart"]


def reliability_chart(bins: Sequence[Bin], *, title: str) -> Chart:
    """Accuracy against confidence; points on the diagonal are calibrated (Guo et al. 2017)."""
    series = Series(
        name="accuracy",
        points=[(one.confidence, one.accuracy) for one in bins],
        bars=[one.interval for one in bins],
        labels=[f"{one.images} images" for one in bins],
    )
    text = (
        "Each point is a group of images of like confidence, with the 95\u00a0% interval of its accuracy. On the "
        "diagonal, the model is as often right as it says; below it, it is too sure."
    )
    return chart(
        [series],
        title=title,
        text=text,
        x=("confidence of the prediction", 0, 1),
        y=("share that is right", 0, 1),
        diagonal=True,
    )


def answered_chart(rows: Sequence[tuple[float, float, float]]) -> Chart:
    """Accuracy against the share answered."""
    low = min(accuracy for _, accuracy, _ in rows)
    floor = max(0.0, (int(low * 20) - 1) / 20)
    points = [(share, accuracy) for share, accuracy, _ in rows]
    return chart(
        [Series(name="accuracy", points=points, marks=False)],
        title="Accuracy against the share answered",
        text="If the model answers only where it is surest, and a person looks at the rest: how often it is right.",
        x=("share of images answered", 0, 1),
        y=("accuracy on them", floor, 1),
    )


_BEST = "The best of several epochs looks better than it is on new images."
_LAST = "No epoch was chosen by these figures."


def curve_charts(saved: Saved) -> list[Chart]:
    """Loss and accuracy by epoch; none for a head in closed form."""
    try:
        curves = curve_data(saved.journal)
    except (ValueError, KeyError, TypeError, OverflowError):
        return []
    epochs = curves.epochs
    ends = ("epoch", min(0, epochs[0]), max(epochs[-1], 1))
    losses = [Series(name="training loss", points=list(zip(epochs, curves.loss, strict=True)))]
    if curves.val_nll is not None:
        losses.append(Series(name="validation NLL", points=list(zip(epochs, curves.val_nll, strict=True)), style="b"))
    highest = max(value for series in losses for _, value in series.points)
    found = [
        chart(
            losses,
            title="Loss by epoch",
            text="Validation NLL that rises while the training loss falls is overfitting.",
            x=ends,
            y=("loss (nats)", 0, highest * 1.05),
            share=(False, False),
        )
    ]
    if curves.val_accuracy is not None:
        floor = max(0.0, min(curves.val_accuracy) - 0.05)
        found.append(
            chart(
                [
                    Series(
                        name="validation accuracy",
                        points=list(zip(epochs, curves.val_accuracy, strict=True)),
                        style="c",
                    )
                ],
                title="Validation accuracy by epoch",
                text=_LAST if saved.record.at("chosen_by_val") is not None and "epoch" not in saved.chosen else _BEST,
                x=ends,
                y=("accuracy", floor, 1),
                share=(False, True),
            )
        )
    return found


def cost_chart(saved: Saved) -> Chart | None:
    """Accuracy against the forward passes of one image: each member, the smallest subset, all of them."""
    if saved.receipt is None or not saved.splits:
        return None
    record, split, receipt = saved.record, saved.splits[0].name, saved.receipt
    members = record.listed(*receipt, "members", of=dict)
    whole = _share(record, *receipt, "ensemble", split, "accuracy")
    alone = [_share(record, *receipt, "members", place, split, "accuracy") for place in range(len(members))]
    known = [value for value in alone if value is not None]
    # a derived rule leaves fewer networks than there were members
    networks = len(saved.runs) or len(alone)
    total = record.whole(*receipt, "cost", "forward_passes") or networks
    each = total / networks
    if whole is None or not known or len(known) < len(alone):
        return None
    series = [
        Series(
            name="a member alone",
            points=[(each, value) for value in known],
            line=False,
            labels=[f"member {place}" for place in range(1, len(alone) + 1)],
        )
    ]
    subset = record.listed(*receipt, "smallest_subset", "members", of=int)
    reached = _share(record, *receipt, "smallest_subset", *(("test",) if split == "test" else ()), "accuracy")
    if subset and reached is not None:
        series.append(
            Series(
                name="the smallest subset within noise",
                points=[(each * len(subset), reached)],
                style="b",
                line=False,
                labels=["subset"],
            )
        )
    name, label = ("the result", "result") if record.mapping(*receipt, "derived") else ("all members", "all")
    series.append(Series(name=name, points=[(total, whole)], style="c", line=False, labels=[label]))
    values = [value for one in series for _, value in one.points]
    on = f"accuracy on {visible(marked(split, [saved.kinds]))}"
    spread = max(max(values) - min(values), 0.02)
    return chart(
        series,
        title="Cost against gain",
        text="Passes through a network that one image costs, and the accuracy that they buy.",
        x=("forward passes an image", 0, max(at for one in series for at, _ in one.points) + each),
        y=(on, max(0.0, min(values) - spread / 2), min(1.0, max(values) + spread / 2)),
        share=(False, True),
    )


def _share(record: Record, *path: str | int) -> float | None:
    found = record.figure(*path, shape=percent)
    return None if found is None else found.value

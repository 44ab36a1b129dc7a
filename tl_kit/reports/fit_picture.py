"""The picture of a fit: the validation NLL of every run and of the best ensemble, over the seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_kit.display import drawable, step_number
from tl_kit.reports.learning_curves import OKABE_ITO
from tl_kit.reports.percent_axis import percent_axis
from tl_kit.reports.png import save_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_fit", "fit_figure"]

_HEADS = ("sample", "head", "view")


def draw_fit(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the leaderboard's rows into a PNG file, atomically. Raises OSError if it cannot be written."""
    save_png(fit_figure(rows), path)


def fit_figure(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Left: NLL of runs and ensemble over time; right: accuracy of each run with its standard error."""
    from matplotlib.figure import Figure

    shown = [row for row in rows if row["accuracy"] is not None]
    height = max(3.6, 1.6 + 0.42 * len(shown))
    figure = Figure(figsize=(11.5, height), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.1, 1])
    _draw_course(left, shown)
    _draw_runs(right, shown)
    return figure


def _draw_course(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    for row in rows:
        number = step_number(row["name"])
        colour = OKABE_ITO["blue"] if row["rung"] in _HEADS else OKABE_ITO["vermillion"]
        axes.errorbar(
            row["elapsed"], row["nll"], yerr=row["nll_error"] or 0.0, fmt="o", color=colour, alpha=0.8, capsize=2
        )
        axes.annotate(number, (row["elapsed"], row["nll"]), (5, 3), textcoords="offset points", size=8)
    together = [row for row in rows if row["together"] is not None]
    times, values = [row["elapsed"] for row in together], [row["together"] for row in together]
    axes.step(times, values, where="post", color=OKABE_ITO["black"], linewidth=2, label="ensemble so far")
    axes.plot([], [], "o", color=OKABE_ITO["blue"], label="heads")
    axes.plot([], [], "o", color=OKABE_ITO["vermillion"], label="trained networks")
    axes.set_xlim(left=0)
    axes.set_xlabel("seconds since the start")
    axes.set_ylabel("NLL on validation, which chose them")
    axes.legend(frameon=False, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_runs(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    labels = []
    for place, row in enumerate(rows):
        colour = OKABE_ITO["blue"] if row["rung"] in _HEADS else OKABE_ITO["vermillion"]
        value, error = 100 * row["accuracy"], 100 * (row["accuracy_error"] or 0.0)
        axes.errorbar(
            value, place, xerr=error, fmt="o", color=colour, capsize=2, mfc=None if row["chosen"] else "white"
        )
        axes.annotate(f"{value:.1f} %", (value, place), (0, 6), textcoords="offset points", ha="center", size=8)
        number = step_number(row["name"])
        labels.append(f"{number}  {drawable(row['network'])}, {row['what']}")
    axes.set_yticks(range(len(rows)), labels, size=8)
    axes.set_ylim(len(rows) - 0.4, -0.7)
    percent_axis(axes, margin=0.15)
    axes.set_xlabel("accuracy on validation (%) ± one standard error\nfilled: a member of the result")
    axes.spines[["top", "right"]].set_visible(False)

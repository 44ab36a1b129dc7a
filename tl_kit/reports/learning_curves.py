"""Learning curves of a run, drawn from ``metrics.jsonl`` in its folder."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_kit.display import drawable
from tl_kit.errors import CheckpointError
from tl_kit.reports.png import save_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["CURVES", "OKABE_ITO", "Curves", "curve_data", "curves_figure", "draw_curves"]

# Eight colours that colour-blind readers can tell apart (Okabe & Ito 2008), without the yellow: too pale for lines.
OKABE_ITO: Mapping[str, str] = {
    "black": "#000000",
    "orange": "#E69F00",
    "sky": "#56B4E9",
    "green": "#009E73",
    "blue": "#0072B2",
    "vermillion": "#D55E00",
    "purple": "#CC79A7",
}
CURVES = "curves.png"
"""The picture of a run's learning curves, in its folder."""

_METRICS = "metrics.jsonl"
_DPI = 120
_LEGEND: Mapping[str, Any] = {"fontsize": 10, "facecolor": "white", "framealpha": 1, "edgecolor": "none"}
_MARKERS_UP_TO = 40
_LOG_FROM = 20  # losses that differ by a larger factor are drawn on a logarithmic scale


@dataclass(frozen=True, kw_only=True)
class Curves:
    """One value per epoch: mean training loss (nats), learning rate of the last step, and the validation metrics.

    ``val_nll`` (nats) and ``val_accuracy`` (0 to 1) are None for a run without validation images. ``best_epoch`` is the
    epoch whose weights were kept; where the run does not say which, that of highest accuracy, then lowest NLL, then the
    first, and without validation images the last; 0 if the state before the first epoch was the best. ``selected``:
    False where validation did not choose it. ``kept``: what was kept in its place, if anything.
    """

    epochs: tuple[int, ...]
    loss: tuple[float, ...]
    lr: tuple[float, ...]
    val_nll: tuple[float, ...] | None
    val_accuracy: tuple[float, ...] | None
    best_epoch: int
    selected: bool = True
    kept: str | None = None


def draw_curves(folder: Path, *, best_epoch: int | None = None, selected: bool = True, kept: str | None = None) -> Path:
    """Draw ``folder/metrics.jsonl`` into ``folder/curves.png``, replacing it; returns its path.

    ``best_epoch`` is the kept one (None: the best by validation), and ``selected`` False where it is not marked as
    chosen by validation. ``kept``: what was kept in place of this epoch's network, the ``head`` or an ``average``.

    Raises :class:`CheckpointError` if the journal is missing or broken, if it has no epoch (a head fitted in closed
    form trains without any), or if the picture cannot be written.
    """
    journal, picture = folder / _METRICS, folder / CURVES
    try:
        curves = replace(curve_data(_rows(journal), best_epoch=best_epoch), selected=selected, kept=kept)
        figure = curves_figure(curves, title=folder.resolve().name)
    except ValueError as error:
        raise CheckpointError(f"{journal}: {error}") from error
    try:
        save_png(figure, picture)
    except OSError as error:
        raise CheckpointError(f"{picture}: cannot be written ({error.strerror})") from error
    return picture


def _rows(journal: Path) -> list[dict[str, Any]]:
    """The journal's rows. Raises CheckpointError if it cannot be read, ValueError for a line that is not an object."""
    try:
        lines = journal.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise CheckpointError(f"{journal}: no such file; give the folder of a run of tlkit finetune") from error
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{journal}: cannot be read ({error})") from error
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise ValueError(f"line {number} is not a JSON object; the file is damaged")
        rows.append(row)
    return rows


def curve_data(rows: Sequence[Mapping[str, Any]], *, best_epoch: int | None = None) -> Curves:
    """The curves in the rows of a journal; rows without an ``epoch`` are not part of them.

    Raises ``ValueError`` if no row has an epoch, or if an epoch's row lacks a finite ``loss`` or ``lr``.
    """
    found = [row for row in rows if "epoch" in row]
    if not found:
        raise ValueError("no epoch to draw (a head fitted in closed form has none): train with --epochs to get curves")
    scored = all("val_nll" in row and "val_accuracy" in row for row in found)
    epochs = tuple(int(epoch) for epoch in _column(found, "epoch"))
    nll = _column(found, "val_nll") if scored else None
    accuracy = _column(found, "val_accuracy") if scored else None
    best = len(epochs) - 1
    if nll is not None and accuracy is not None:
        best = max(range(len(epochs)), key=lambda i: (accuracy[i], -nll[i], -i))
    return Curves(
        epochs=epochs,
        loss=_column(found, "loss"),
        lr=_column(found, "lr"),
        val_nll=nll,
        val_accuracy=accuracy,
        best_epoch=epochs[best] if best_epoch is None else best_epoch,
    )


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[float, ...]:
    values = [row.get(name) for row in rows]
    for row, value in zip(rows, values, strict=True):
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"epoch {row['epoch']} has no finite {name!r}; the file is damaged")
    return tuple(float(value) for value in values if value is not None)


def curves_figure(curves: Curves, *, title: str = "") -> Figure:
    """Loss, accuracy (with validation images) and learning rate against the epoch, one panel each.

    The figure has no window and is not part of pyplot's global state.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    heights = [3.0, 2.2, 1.3] if curves.val_accuracy is not None else [3.0, 1.3]
    figure = Figure(figsize=(7.5, sum(heights) + 0.9), dpi=_DPI, layout="constrained")
    axes = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    if title:
        figure.suptitle(drawable(title), fontsize=13)
    _draw_loss(axes[0], curves)
    if curves.val_accuracy is not None:
        _draw_accuracy(axes[1], curves, curves.val_accuracy)
    axes[-1].plot(curves.epochs, curves.lr, color=OKABE_ITO["black"], **_style(curves, "."))
    axes[-1].set(ylabel="learning rate", xlabel="epoch", ylim=(0, max(curves.lr) * 1.1 or 1))
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    for panel in axes:
        if curves.best_epoch in curves.epochs:
            panel.axvline(curves.best_epoch, color="0.45", linestyle=":", linewidth=1.2, zorder=0)
        panel.grid(axis="y", color="0.9")
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    figure.align_ylabels(list(axes))
    return figure


def _draw_loss(panel: Axes, curves: Curves) -> None:
    panel.plot(curves.epochs, curves.loss, color=OKABE_ITO["blue"], label="training loss", **_style(curves, "o"))
    if curves.val_nll is not None:
        style = _style(curves, "s") | {"linestyle": "--"}
        panel.plot(curves.epochs, curves.val_nll, color=OKABE_ITO["vermillion"], label="validation NLL", **style)
    panel.set_ylabel("loss (nats)")
    values = (*curves.loss, *(curves.val_nll or ()))
    if min(values) > 0 and max(values) > _LOG_FROM * min(values):
        panel.set_yscale("log")
    else:
        panel.set_ylim(bottom=min(0.0, *values))
    panel.legend(**_LEGEND)


def _draw_accuracy(panel: Axes, curves: Curves, accuracy: tuple[float, ...]) -> None:
    from matplotlib.ticker import PercentFormatter

    panel.plot(curves.epochs, accuracy, color=OKABE_ITO["green"], **_style(curves, "^"))
    panel.set_ylabel("validation accuracy")
    panel.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    if curves.best_epoch not in curves.epochs:  # the weights from before the first epoch were kept
        return
    best = accuracy[curves.epochs.index(curves.best_epoch)]
    several = curves.selected and len(accuracy) > 1
    chosen = " (selected on)" if several else ""  # the best of several looks better than it is
    epoch = f"epoch {curves.best_epoch}, {best:.1%}{chosen}"
    label = f"kept: {epoch}" if curves.kept is None else f"{epoch}; kept: {drawable(curves.kept)}"
    marker: dict[str, Any] = {"marker": "*", "markersize": 14, "linestyle": "none"}
    panel.plot([curves.best_epoch], [best], color=OKABE_ITO["orange"], markeredgecolor="black", label=label, **marker)
    panel.legend(**_LEGEND)


def _style(curves: Curves, marker: str) -> dict[str, Any]:
    """Style of a curve: a marker per epoch while markers do not overlap; a single epoch is only a marker."""
    return {"linewidth": 1.8, "marker": marker if len(curves.epochs) <= _MARKERS_UP_TO else None, "markersize": 5}

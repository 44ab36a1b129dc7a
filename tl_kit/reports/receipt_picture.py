"""The picture of an ensemble's receipt: accuracies with intervals, and how often members disagree."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from tl_kit.combining.receipt import Receipt
from tl_kit.display import drawable, is_marked, visible
from tl_kit.metrics import wilson
from tl_kit.reports.percent_axis import percent_axis
from tl_kit.reports.png import save_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_receipt", "receipt_figure"]

Split: TypeAlias = Literal["val", "test"]

_LONGEST = 28
_NUMBERS_UP_TO = 10  # with more members, the cells are too small for numbers


def draw_receipt(receipt: Receipt, path: Path) -> None:
    """Draw the receipt into a PNG file, atomically. Raises OSError if it cannot be written."""
    save_png(receipt_figure(receipt), path)


def receipt_figure(receipt: Receipt) -> Figure:
    """Left: accuracy of members and ensemble with 95 % intervals (Wilson 1927); right: pairwise disagreement.

    Both use test images, or validation images if there is no test split.
    """
    from matplotlib.figure import Figure

    members = len(receipt["members"])
    height = max(3.2, 1.4 + 0.42 * (members + 1))
    figure = Figure(figsize=(6.2 + height, height), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.5, 1])
    split: Split = "test" if receipt["ensemble"]["test"] is not None else "val"
    names = _short([member["checkpoint"] for member in receipt["members"]])
    _draw_accuracies(left, receipt, split, names)
    _draw_disagreement(figure, right, receipt, split)
    return figure


def _draw_accuracies(axes: Axes, receipt: Receipt, split: Split, names: Sequence[str]) -> None:
    together = [member[split] for member in receipt["members"]]
    together.append(receipt["ensemble"][split])
    images = receipt["images"][split] or 0
    rows = np.arange(len(together))
    for row, scores in zip(rows, together, strict=True):
        assert scores is not None  # the split is one with scores
        lo, hi = wilson(scores["accuracy"], images)
        colour = "tab:red" if row == len(names) else "tab:blue"
        axes.plot([100 * lo, 100 * hi], [row, row], color=colour, linewidth=2, alpha=0.5)
        axes.plot(100 * scores["accuracy"], row, "o", color=colour)
        text = f"{100 * scores['accuracy']:.1f} %, NLL {scores['nll']:.3f}"
        axes.annotate(text, (100 * scores["accuracy"], row), (0, 6), textcoords="offset points", ha="center", size=8)
    axes.axhline(len(names) - 0.5, color="0.8", linewidth=1)
    labels = [f"{number}  {name}" for number, name in enumerate(names, 1)]
    axes.set_yticks(rows, [*labels, f"ensemble ({receipt['rule']})"])
    axes.set_ylim(len(names) + 0.6, -0.7)
    percent_axis(axes, margin=0.2)
    axes.set_xlabel("accuracy (%), 95 % interval of each")
    kinds = [*(member["kinds"] for member in receipt["members"]), receipt["kinds"]]
    kind = receipt["kinds"].get(split, "") if is_marked(split, kinds) else ""
    axes.set_title(f"{images} {split} images" + (f" ({kind}: too good as an estimate)" if kind else ""), size=10)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_disagreement(figure: Figure, axes: Axes, receipt: Receipt, split: Split) -> None:
    shares = 100 * np.array(receipt["disagreement"][split])
    members = len(shares)
    numbers = [str(number) for number in range(1, members + 1)]
    top = max(float(shares.max()), 1.0)
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=top)
    if members <= _NUMBERS_UP_TO:
        for row, column in np.ndindex(members, members):
            colour = "white" if shares[row, column] > 0.6 * top else "black"
            axes.text(column, row, f"{shares[row, column]:.0f}", ha="center", va="center", color=colour, size=8)
        axes.set_xticks(range(members), numbers)
        axes.set_yticks(range(members), numbers)
    axes.set_title("members disagree (% of images)", size=10)
    figure.colorbar(picture, ax=axes, shrink=0.8)


def _short(checkpoints: Sequence[str]) -> list[str]:
    """Folder names without their common parent; long names are shortened in the middle."""
    names = [visible(Path(checkpoint).name or checkpoint) for checkpoint in checkpoints]
    half = (_LONGEST - 1) // 2
    return [drawable(name if len(name) <= _LONGEST else f"{name[:half]}…{name[-half:]}") for name in names]

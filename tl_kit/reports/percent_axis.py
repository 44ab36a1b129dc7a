"""A horizontal axis of percentages: space beside the outermost marks, and no tick beyond 0 and 100."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["percent_axis"]


def percent_axis(axes: Axes, *, margin: float) -> None:
    """``margin``: the space at each end, as a share of what is drawn; it is for the figures above the marks."""
    axes.margins(x=margin)
    ends = axes.get_xlim()
    axes.set_xticks([tick for tick in axes.get_xticks() if 0 <= tick <= 100])
    axes.set_xlim(ends)

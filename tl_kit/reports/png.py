"""PNG writing: atomic, and without matplotlib's warnings about characters that the font lacks."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from tl_kit.storage.atomic import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["save_png"]


def save_png(figure: Figure, path: Path) -> None:
    """Write a PNG file, atomically; missing characters become boxes. Raises CheckpointError if it cannot be written."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)  # its own method: the figure's draws all twice
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        write_atomically(path, canvas.print_png)

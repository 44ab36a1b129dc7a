"""What all pictures share: names that others chose, drawn as they are, and a file that is whole or absent."""

from __future__ import annotations

import unicodedata
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from tl_kit.training.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["drawable", "save_png"]


def drawable(text: str) -> str:
    """``text`` for matplotlib: without formulas, and with a replacement character for what has no shape."""
    shaped = ("\ufffd" if unicodedata.category(c) in ("Cc", "Cs") else c for c in text)
    return "".join(shaped).replace("$", r"\$")


def save_png(figure: Figure, path: Path) -> None:
    """Write a figure, atomically; letters that the font lacks are boxes. Raises OSError if it cannot be written."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        write_atomically(path, lambda temporary: figure.savefig(temporary, format="png"))

"""Words and numbers for people: control characters made visible, figures in their usual form."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping

__all__ = ["EPOCH_FIGURES", "figure", "figures", "visible"]

EPOCH_FIGURES = ("epoch", "loss", "val_accuracy", "val_nll", "lr", "images_per_second", "data_wait")
"""What is shown of an epoch; ``metrics.jsonl`` has all."""

_SHARES = ("accuracy", "balanced_accuracy", "macro_f1", "ece", "precision", "recall", "f1", "data_wait")
_JOINERS = "\u200c\u200d"  # spelling of Persian and Indic names, and of emoji


def visible(text: str) -> str:
    r"""``text`` on one line; what a terminal would obey instead of show becomes ``\x1b``, ``\n``, ``\u202e``.

    That is Unicode's control, format, surrogate and separator characters; class names and paths come from others.
    """
    return "".join(_escaped(c) if _is_hidden(c) else c for c in text)


def _is_hidden(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and character not in _JOINERS


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def figure(name: str, value: float) -> str:
    """One figure by its name: shares in percent, rates in powers of ten, counts whole, the rest to 3 decimals."""
    short = name.removeprefix("val_").removeprefix("test_")
    if short in _SHARES:
        return f"{100 * value:.1f} %"
    if short == "lr":
        return f"{value:.1e}"
    if short in ("epoch", "support"):
        return f"{value:.0f}"
    return f"{value:.0f}" if short == "images_per_second" else f"{value:.3f}"


def figures(row: Mapping[str, float]) -> str:
    """Figures on one line: ``loss 0.412  val accuracy 87.1 %``."""
    return "  ".join(f"{name.replace('_', ' ')} {figure(name, value)}" for name, value in row.items())

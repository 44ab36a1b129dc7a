"""Words and numbers for people: figures in their usual form."""

from __future__ import annotations

from collections.abc import Mapping

from tl_kit.display import marked, visible

__all__ = ["EPOCH_FIGURES", "figure", "figures", "marked", "visible"]

EPOCH_FIGURES = ("epoch", "loss", "val_accuracy", "val_nll", "lr", "images_per_second", "data_wait")
"""What is shown of an epoch; ``metrics.jsonl`` has all."""

_SHARES = ("accuracy", "balanced_accuracy", "macro_f1", "ece", "precision", "recall", "f1", "data_wait")


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

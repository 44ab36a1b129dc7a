"""``tlkit predict``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from tl_kit.cli import options
from tl_kit.cli.console import Console
from tl_kit.cli.parsing import crop_config
from tl_kit.cli.session import PROBLEMS_FOUND, session
from tl_kit.config import DecodeConfig, PredictConfig
from tl_kit.errors import ConfigError

if TYPE_CHECKING:
    from tl_kit import Prediction

__all__ = ["predict"]


def predict(
    checkpoint: options.Checkpoint,
    images: options.Images,
    top: options.Top = PredictConfig.top,
    form: options.Format = PredictConfig.format,
    crops: options.Crops = None,
    scales: options.Scales = None,
    mc_dropout: options.McDropout = None,
    max_pixels: options.MaxPixels = DecodeConfig.max_pixels,
    debug: options.Debug = False,
) -> None:
    """Name images: the most probable classes of each. Exit code 1 if an image cannot be decoded."""
    with session(debug=debug) as console:
        if top < 1:
            raise ConfigError(f"--top {top}: must be at least 1")
        chosen, limits = crop_config(crops, scales), DecodeConfig(max_pixels=max_pixels)
        import tl_kit

        found = tl_kit.predict(checkpoint, images, crops=chosen, mc_dropout=mc_dropout, decode=limits, reporter=console)
        if form == "table":
            _table(found, top, console)
        else:
            console.raw(_csv(found, top) if form == "csv" else _jsonl(found, top))
        failed = sum(prediction.error is not None for prediction in found)
        if failed:
            console.message(f"{failed} of {len(found)} images could not be decoded")
            raise typer.Exit(PROBLEMS_FOUND)


def _table(found: Sequence[Prediction], top: int, console: Console) -> None:
    """One row an image; the reasons in a column of their own, where there are any."""
    widest = max(len(_best(prediction, top)) for prediction in found)
    errors = ["error"] if any(prediction.error is not None for prediction in found) else []
    rows = []
    for prediction in found:
        cells = [cell for label, p in _best(prediction, top) for cell in (label, f"{100 * p:.1f} %")]
        reason = [prediction.error or ""] if errors else []
        rows.append([prediction.source, *cells, *[""] * (2 * widest - len(cells)), *reason])
    header = ["image", *_names(widest, " ", probability="prob.")[: 2 * widest], *errors]
    console.table(header, rows, align="l" + "lr" * widest + "w" * len(errors))


def _csv(found: Sequence[Prediction], top: int) -> str:
    """One row an image; always ``top`` pairs of columns, empty where there are fewer classes."""
    from tl_kit import csv_text

    rows: list[list[object]] = [["path", *_names(top, "_"), "error"]]
    for prediction in found:
        cells: list[object] = [cell for pair in _best(prediction, top) for cell in pair]
        rows.append([prediction.source, *cells, *[""] * (2 * top - len(cells)), prediction.error or ""])
    return "".join(csv_text(rows))


def _jsonl(found: Sequence[Prediction], top: int) -> str:
    """One object an image: path, label, probability, top (label and probability each), error."""
    lines = []
    for prediction in found:
        best = _best(prediction, top)
        label, probability = best[0] if best else (None, None)
        row = {
            "path": prediction.source,
            "label": label,
            "probability": probability,
            "top": [{"label": name, "probability": p} for name, p in best],
            "error": prediction.error,
        }
        lines.append(json.dumps(row, allow_nan=False) + "\n")
    return "".join(lines)


def _best(prediction: Prediction, top: int) -> list[tuple[str, float]]:
    return list(prediction.probabilities.items())[:top]


def _names(top: int, joint: str, *, probability: str = "probability") -> list[str]:
    """label, probability, label_2, probability_2, ..."""
    suffixes = ["", *(f"{joint}{rank}" for rank in range(2, top + 1))]
    return [f"{name}{suffix}" for suffix in suffixes for name in ("label", probability)]

"""``tlkit predict``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from tl_kit.cli.command import Given, command
from tl_kit.cli.console import Console
from tl_kit.cli.session import PROBLEMS_FOUND
from tl_kit.config import PredictConfig

if TYPE_CHECKING:
    from tl_kit import Prediction

__all__ = ["predict"]


@command(PredictConfig, usage="tlkit predict CKPT PATH...")
def predict(given: Given, console: Console) -> None:
    """Name images: the most probable classes of each. Exit code 1 if an image cannot be decoded."""
    asked = given.read(PredictConfig)
    import tl_kit

    found = tl_kit.predict(
        asked.checkpoint,
        list(asked.images),
        crops=asked.crops,
        mc_dropout=asked.mc_dropout,
        decode=asked.decode,
        runtime=asked.runtime,
        reporter=console,
    )
    if asked.format == "table":
        _table(found, asked.top, console)
    else:
        console.raw(_csv(found, asked.top) if asked.format == "csv" else _jsonl(found, asked.top))
    failed = sum(prediction.error is not None for prediction in found)
    if failed:
        console.message(f"{failed} of {len(found)} images could not be decoded")
        raise typer.Exit(PROBLEMS_FOUND)


def _table(found: Sequence[Prediction], top: int, console: Console) -> None:
    """Show one row per image; reasons for missing predictions, if any, have a separate column."""
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
    """One CSV row per image; always ``top`` pairs of columns, empty if there are fewer classes."""
    from tl_kit import csv_text

    rows: list[list[object]] = [["path", *_names(top, "_"), "error"]]
    for prediction in found:
        cells: list[object] = [cell for pair in _best(prediction, top) for cell in pair]
        rows.append([prediction.source, *cells, *[""] * (2 * top - len(cells)), prediction.error or ""])
    return "".join(csv_text(rows))


def _jsonl(found: Sequence[Prediction], top: int) -> str:
    """One JSON object per image: path, label, probability, top (a list of label and probability), error."""
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

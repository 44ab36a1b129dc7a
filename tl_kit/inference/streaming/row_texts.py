"""Rows of predictions as text: CSV, or a JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tl_kit.inference.prediction import Prediction
from tl_kit.storage.atomic import csv_text

__all__ = ["Rows", "holds_rows"]

_LONGEST = 2**20
_CSV, _JSON, _PARQUET = b"path,label,probability", b'{"path": ', b"PAR1"


def holds_rows(file: Path) -> bool:
    """True for a file that is empty, or begins as predictions in CSV, JSON lines or Parquet do."""
    with file.open("rb") as stream:
        first = stream.readline(_LONGEST)
    if first.startswith(_PARQUET):
        from pyarrow import ArrowException, parquet

        try:
            return {"path", "label", "probability", "top", "error"} <= set(parquet.read_schema(file).names)
        except ArrowException:
            return False
    return not first or first.startswith(_CSV) or (first.startswith(_JSON) and b'"top": ' in first)


@dataclass(frozen=True)
class Rows:
    """The text of predictions with ``top`` classes an image, as CSV (``csv``) or JSON lines (``jsonl``).

    CSV has the columns path, label, probability, label_2, ..., error: always ``top`` pairs, empty where there are fewer
    classes. A JSON object has path, label, probability, top (a list of label and probability), error.
    """

    format: str
    top: int

    @property
    def header(self) -> str:
        """The first line."""
        if self.format != "csv":
            return ""
        suffixes = ["", *(f"_{rank}" for rank in range(2, self.top + 1))]
        names = [f"{name}{suffix}" for suffix in suffixes for name in ("label", "probability")]
        return "".join(csv_text([["path", *names, "error"]]))

    def text(self, predictions: Sequence[Prediction]) -> str:
        """A row for each prediction."""
        row = self._csv if self.format == "csv" else self._json
        return "".join(map(row, predictions))

    def _csv(self, prediction: Prediction) -> str:
        cells: list[object] = [cell for pair in self._best(prediction) for cell in pair]
        empty = [""] * (2 * self.top - len(cells))
        return "".join(csv_text([[prediction.source, *cells, *empty, prediction.error or ""]]))

    def _json(self, prediction: Prediction) -> str:
        best = self._best(prediction)
        label, probability = best[0] if best else (None, None)
        row = {
            "path": prediction.source,
            "label": label,
            "probability": probability,
            "top": [{"label": name, "probability": p} for name, p in best],
            "error": prediction.error,
        }
        return json.dumps(row, allow_nan=False) + "\n"

    def _best(self, prediction: Prediction) -> list[tuple[str, float]]:
        return list(prediction.probabilities.items())[: self.top]

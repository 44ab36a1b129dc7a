"""``metrics.jsonl``: one JSON object per line, appended during the run."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from tl_kit.storage.atomic import writing

__all__ = ["JOURNAL", "Journal"]

JOURNAL = "metrics.jsonl"


@dataclass(frozen=True)
class Journal:
    """Appends rows to ``folder/metrics.jsonl``; each is on disk before the call returns. Without a folder
    nothing is written."""

    folder: Path | None

    def write(self, **row: object) -> None:
        if self.folder is None:
            return
        with writing(self.folder), (self.folder / JOURNAL).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

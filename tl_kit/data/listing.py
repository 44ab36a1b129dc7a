"""What a folder or a CSV file claims to hold, before any image is opened."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from tl_kit.data.manifest import Exclusion

__all__ = ["EXPECTED", "SPLIT_NAMES", "Candidate", "Listing", "name_some", "natural_key"]

EXPECTED = (
    "expected are class folders (cat/, dog/), or train/, val/ and test/ folders that hold class folders, "
    "or a CSV file with the columns path,label[,split][,group]"
)
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "holdout"), "test"),
}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that should be an image of class ``label``; ``split`` is ``None`` where none is given."""

    path: Path
    label: str
    split: str | None = None
    group: str | None = None


@dataclass
class Listing:
    """Candidates in no particular order, what was left out already, and the folder of each (split, class)."""

    candidates: list[Candidate] = field(default_factory=list)
    exclusions: list[Exclusion] = field(default_factory=list)
    class_folders: dict[tuple[str | None, str], Path] = field(default_factory=dict)


def natural_key(name: str) -> tuple[list[tuple[bool, int, str]], str]:
    """Sort key under which "class 2" comes before "class 10"; capitals matter only between otherwise equal names."""
    parts = [(i % 2, part) for i, part in enumerate(re.split(r"([0-9]+)", name)) if part]
    plain = [(number, part.lstrip("0") if number else part.casefold()) for number, part in parts]
    # By length, then by digits: the order of the numbers, of which Python parses no more than 4,300 digits.
    return [(False, len(part), part) if number else (True, 0, part) for number, part in plain], name


def name_some(names: list[str], *, limit: int = 5) -> str:
    """A few of the names, quoted, for an error message of one line."""
    shown = ", ".join(f"'{name}'" for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"

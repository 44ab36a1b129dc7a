"""Listing: the images and labels in a folder or a CSV file, before any image is opened."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from tl_kit.class_names import visible
from tl_kit.data.findings import Finding
from tl_kit.data.manifest import Exclusion
from tl_kit.errors import DataError

__all__ = ["EXPECTED", "SPLIT_NAMES", "Candidate", "Listing", "name_some", "natural_key", "split_of"]

EXPECTED = (
    "expected are class folders (cat/, dog/), or train/, val/ and test/ folders that hold class folders, "
    "or a CSV file with the columns path,label[,split][,group], or one of the other forms in docs/data.md"
)
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "holdout"), "test"),
}
# "training_set", "Test Images", "val2017"
_SPLIT = re.compile(rf"({'|'.join(SPLIT_NAMES)})(?:[ _-]?(?:set|data|images|imgs|split|[0-9]{{4}}))?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that should be an image of class ``label``; ``split`` is ``None`` if none is given.

    ``inside``: the folders of the file, below the class folder, or in a CSV file all folders of the path.
    """

    path: Path
    label: str
    split: str | None = None
    group: str | None = None
    inside: tuple[str, ...] = ()


@dataclass
class Listing:
    """Candidates in no particular order, exclusions so far, and the split and class of each class folder.

    ``notes`` are sentences on how the data was read, ``faults`` are faults of its layout. ``table``: labels come from a
    table, and not from folders. ``copied`` are folders of local copies, each with the path for people that it is of.
    """

    candidates: list[Candidate] = field(default_factory=list)
    exclusions: list[Exclusion] = field(default_factory=list)
    class_folders: dict[Path, tuple[str | None, str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    faults: list[Finding] = field(default_factory=list)
    table: bool = False
    copied: list[tuple[Path, Path]] = field(default_factory=list)


def split_of(name: str) -> str | None:
    """The split that a word or a folder's name means, ignoring case and surrounding blanks; None for other words."""
    found = _SPLIT.fullmatch(visible(name).strip())
    return SPLIT_NAMES[found[1].lower()] if found else None


def named_split(value: object, where: str) -> str | None:
    """The split in a cell or an entry; None for an empty one. Raises DataError for any other word."""
    if value is None or value == "":
        return None
    found = split_of(str(value))
    if found is None:
        raise DataError(f"{where}: unknown split '{visible(str(value)):.40}' (use train, val or test)")
    return found


def natural_key(name: str) -> tuple[list[tuple[bool, int, str]], str]:
    """Sort key under which "class 2" comes before "class 10"; capitals matter only between otherwise equal names."""
    parts = [(i % 2, part) for i, part in enumerate(re.split(r"([0-9]+)", name)) if part]
    plain = [(number, part.lstrip("0") if number else part.casefold()) for number, part in parts]
    # Length, then digits: the order of the numbers, without parsing, which Python limits to 4,300 digits.
    return [(False, len(part), part) if number else (True, 0, part) for number, part in plain], name


def name_some(names: list[str], *, limit: int = 5) -> str:
    """A few of the names, quoted, for an error message of one line."""
    shown = ", ".join(f"'{name}'" for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"

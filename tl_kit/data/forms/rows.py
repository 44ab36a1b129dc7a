"""Rows: images with label, split and group that were written out of a table, and their listing."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from tl_kit.class_names import nfc
from tl_kit.data.findings import Finding
from tl_kit.data.forms.local_copies import Room
from tl_kit.data.listing import Candidate, Listing, split_of
from tl_kit.data.manifest import Exclusion
from tl_kit.errors import DataError

__all__ = ["ROWS", "RowWriter", "list_rows", "no_rows", "split_in_name", "text_of_label"]

ROWS = "rows.json"
_SAFE = re.compile(r"[\w .,()+=@~-]{1,200}")
_ENDINGS = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png", b"GIF8": ".gif", b"BM": ".bmp", b"RIFF": ".webp"}
_ENDINGS |= {b"II*\0": ".tif", b"MM\0*": ".tif"}


@dataclass
class RowWriter:
    """Writes images below ``folder``, under their own names where these can be file names, and :data:`ROWS` at the end.

    Names are kept since groups may be read from them; equal names come into other folders.
    """

    folder: Path
    room: Room
    rows: list[list[str | None]] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    faults: list[Finding] = field(default_factory=list)
    _taken: dict[str, int] = field(default_factory=dict)

    def add(
        self, data: bytes, *, name: str | None, label: str, split: str | None, group: str | None, where: str
    ) -> None:
        """One image's bytes, as they are. ``name``: of its file, or None; ``where``: its row in the table, in words."""
        base = PureWindowsPath(PurePosixPath(name or "").name).name
        if not _SAFE.fullmatch(base) or base.startswith("."):
            base = f"{len(self.rows):08d}"
        if "." not in base:
            base += next((ending for magic, ending in _ENDINGS.items() if data.startswith(magic)), "")
        count = self._taken.get(base, 0)
        self._taken[base] = count + 1
        target = self.folder / str(count) / base
        target.parent.mkdir(exist_ok=True)
        self.room.file()
        self.room.take(len(data))
        target.write_bytes(data)
        inside = PurePosixPath((name or "").replace("\\", "/")).parent.as_posix()
        self.rows.append([f"{count}/{base}", label, split, group, inside, where])

    def leave(self, name: str, reason: str) -> None:
        """A row without a usable image."""
        self.left_out.append((name, reason))

    def finish(self, label: str) -> None:
        """Write the rows. Raises DataError, which names the column ``label``, where none has an image and a label."""
        if not self.rows:
            raise no_rows(self.room.of, len(self.left_out), next((why for _, why in self.left_out), ""), label)
        faults = [(fault.severity, fault.code, fault.message) for fault in self.faults]
        content = {"rows": self.rows, "left_out": self.left_out, "notes": self.notes, "faults": faults}
        (self.folder / ROWS).write_text(json.dumps(content), encoding="utf-8")


def list_rows(folder: Path) -> Listing:
    """Candidates of the rows that a :class:`RowWriter` wrote into ``folder``."""
    content = json.loads((folder / ROWS).read_text(encoding="utf-8"))
    faults = [Finding(*fault) for fault in content["faults"]]
    listing = Listing(notes=list(content["notes"]), faults=faults, table=True)
    for name, label, split, group, inside, *where in content["rows"]:  # copies of older versions have no ``where``
        folders = PurePosixPath(inside).parts
        listing.candidates.append(Candidate(folder / name, nfc(label), split, nfc(group) if group else None, folders))
        listing.copied += [(folder / name, folder / text) for text in where]
    listing.exclusions += [Exclusion(folder / name, reason) for name, reason in content["left_out"]]
    return listing


def no_rows(of: str, count: int, reason: str, label: str) -> DataError:
    """Return the error for a table none of whose ``count`` rows can be used; ``reason``: why not the first."""
    if not count:
        return DataError(f"{of}: has no rows")
    if reason == "no label":
        named = f"{of}: none of its {count:,} rows has a label: the column '{label}' is empty, or -1, where images are"
        return DataError(f"{named}; name the column of classes with --label-column")
    return DataError(f"{of}: none of its {count:,} rows has an image; the first: {reason}")


def text_of_label(value: Any, names: list[str] | None, where: str) -> str | None:
    """A class name from a cell: a name, or an index into ``names``; None for an empty cell and for -1, unlabelled.

    Raises DataError for an index beyond the names, and for a list of labels or a mapping.
    """
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="replace")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value is None or value == -1 or (isinstance(value, float) and value != value):
        return None
    if isinstance(value, (list, tuple, dict, set)):
        raise DataError(f"{where}: has several labels an image; one class an image is needed")
    if names is not None and isinstance(value, int) and not isinstance(value, bool):
        if not 0 <= value < len(names):
            raise DataError(f"{where}: the label {value} has no name; there are {len(names)} class names")
        return names[value]
    return str(value).strip() or None


def split_in_name(name: str, shown: str) -> str | None:
    """The split that a shard's name begins with or holds as a word: ``train-00000-of-00002``, ``imgs_val_003``.

    Raises DataError, which begins with ``shown``, for a name with the words of two.
    """
    words = re.split(r"[-_. ]+", PurePosixPath(name).name.lower())
    found = list(dict.fromkeys(split for word in words if (split := split_of(word)) is not None))
    if len(found) > 1:
        raise DataError(f"{shown}: the name {name} means two splits, {' and '.join(found)}; rename the file")
    return found[0] if found else None

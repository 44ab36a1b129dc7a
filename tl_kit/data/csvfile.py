"""Listing a CSV file: a path and a label a row, and perhaps a split and a group."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from tl_kit.class_names import nfc
from tl_kit.config import DataConfig
from tl_kit.data.findings import Finding
from tl_kit.data.forms.named_files import NamedFiles
from tl_kit.data.forms.text_table import TableRow, open_table
from tl_kit.data.forms.unused_columns import UnusedColumns
from tl_kit.data.listing import Candidate, Listing, split_of
from tl_kit.data.lostpaths import explain
from tl_kit.data.manifest import Exclusion
from tl_kit.errors import DataError

__all__ = ["list_csv"]

_DEFAULT = DataConfig()
_GONE = "no such file"


def list_csv(file: Path, config: DataConfig = _DEFAULT) -> Listing:
    """Candidates of a CSV file in UTF-8, with a header; paths are relative to the file's folder.

    The separator may be a comma, a semicolon, a tab or a bar. Columns are found by their usual names
    (:func:`find_columns`) or by ``image_column`` and ``label_column``; :class:`UnusedColumns` tells of others. An image
    may be named by its stem or its name alone where it lies beside or below the table (:class:`NamedFiles`). ``split``
    takes the usual names (:func:`split_of`); it is filled in every row or in none. Rows with an empty ``group`` belong
    to no group. Missing files and identical rows become exclusions with their line number. Labels and groups are in
    Unicode's composed form; a path is also found if the disk has it in the other form.

    Raises :class:`DataError`, with line numbers, on a wrong header, a row of the wrong length, an empty path or
    label, an unknown or missing split, a path listed twice with another label, split or group, a name of several files,
    or if no path exists.
    """
    problems: list[str] = []
    table = open_table(file, image=config.image_column, label=config.label_column)
    unused = UnusedColumns(table.columns)
    rows = [row for row in table.rows(problems, unused=unused) if _is_sound(row, problems)]
    has_splits = any(row.split for row in rows)
    if has_splits:
        bare = [row.line for row in rows if not row.split]
        if bare:
            problems.append(f"line {bare[0]}: no split, though other rows have one ({len(bare)} such rows)")
    listing = Listing(table=True)
    files = NamedFiles(file.parent)
    first: dict[str, tuple[TableRow, Candidate]] = {}
    for row in rows:
        path = files.find(row.path)
        if isinstance(path, str):
            problems.append(f"line {row.line}: {path}")
            continue
        candidate = _candidate(row, path)
        key = os.path.normpath(candidate.path)
        seen, twin = first.setdefault(key, (row, candidate))
        if seen is row:
            _list_one(candidate, row, listing)
        elif (twin.label, twin.split, twin.group) == (candidate.label, candidate.split, candidate.group):
            listing.exclusions.append(Exclusion(candidate.path, f"line {row.line}: listed in line {seen.line} already"))
        else:
            others = [name for name in ("label", "split", "group") if getattr(twin, name) != getattr(candidate, name)]
            differs = " and ".join(others)
            problems.append(f"line {row.line}: {row.path} is listed with another {differs} in line {seen.line}")
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise DataError(f"{file}: {'; '.join(problems[:3])}{more}")
    _check_paths(file, [row for row, _ in first.values()], listing)
    if (note := table.columns.note()) is not None:
        listing.notes.append(note)
    unused.tell(listing, splits_known=has_splits)
    if files.by_name:
        listing.notes.append(f"{files.by_name:,} of {len(rows):,} images were found by their names below {file.parent}")
    return listing


def _check_paths(file: Path, rows: Sequence[TableRow], listing: Listing) -> None:
    """Raises DataError if no path exists; if most paths do not exist, it records a fault."""
    missing = {exclusion.path for exclusion in listing.exclusions if exclusion.reason.endswith(_GONE)}
    if not missing or 2 * len(missing) <= len(rows):
        return
    lost = [row for row in rows if file.parent / row.path in missing]
    text = explain(lost[0].path, file.parent)
    if len(missing) == len(rows):
        raise DataError(f"{file}: none of its {len(rows):,} paths exists; line {lost[0].line}: {text}")
    many = f"{len(missing):,} of the {len(rows):,} paths in {file.name} do not exist; line {lost[0].line}: {text}"
    listing.faults.append(Finding("warning", "missing-paths", many))


def _list_one(candidate: Candidate, row: TableRow, listing: Listing) -> None:
    try:
        mode = candidate.path.stat().st_mode
    except FileNotFoundError:
        reason = _GONE
    except (OSError, ValueError) as error:  # ValueError: a null character
        reason = f"cannot be read: {getattr(error, 'strerror', None) or error}"
    else:
        if stat.S_ISREG(mode):
            listing.candidates.append(candidate)
            return
        reason = "is a folder" if stat.S_ISDIR(mode) else "not a regular file"
    listing.exclusions.append(Exclusion(candidate.path, f"line {row.line}: {reason}"))


def _candidate(row: TableRow, path: Path) -> Candidate:
    return Candidate(
        path=path,
        label=nfc(row.label),
        split=split_of(row.split) if row.split else None,
        group=nfc(row.group) or None,
        inside=Path(row.path).parts[:-1],
    )


def _is_sound(row: TableRow, problems: list[str]) -> bool:
    found = [f"no {name}" for name, text in (("path", row.path), ("label", row.label)) if not text]
    if row.split and split_of(row.split) is None:
        found.append(f"unknown split '{row.split}' (use train, val or test)")
    problems.extend(f"line {row.line}: {text}" for text in found)
    return not found

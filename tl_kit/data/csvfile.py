"""Listing a CSV file of ``path,label[,split][,group]``."""

from __future__ import annotations

import csv
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tl_kit.class_names import nfc, visible
from tl_kit.data.findings import Finding
from tl_kit.data.listing import Candidate, Listing, split_of
from tl_kit.data.lostpaths import explain, other_form
from tl_kit.data.manifest import Exclusion
from tl_kit.errors import DataError, nearest

__all__ = ["list_csv"]

_REQUIRED = ("path", "label")
_COLUMNS = (*_REQUIRED, "split", "group")
_DELIMITERS = ",;\t"
_GONE = "no such file"


@dataclass(frozen=True)
class _Row:
    line: int
    values: dict[str, str]


def list_csv(file: Path) -> Listing:
    """Candidates of a CSV file in UTF-8, with a header; paths are relative to the file's folder.

    The separator may be a comma, a semicolon or a tab. Other columns are ignored. ``split`` takes the usual names
    (:func:`split_of`); it is filled in every row or in none. Rows with an empty ``group`` belong to no group. Missing
    files and identical rows become exclusions with their line number. Labels and groups are in Unicode's composed form;
    a path is also found if the disk has it in the other form.

    Raises :class:`DataError`, with line numbers, on a wrong header, a row of the wrong length, an empty path or
    label, an unknown or missing split, a path listed twice with different labels or splits,
    or if no path exists.
    """
    problems: list[str] = []
    rows = [row for row in _rows(file, problems) if _is_sound(row, problems)]
    if any(row.values.get("split") for row in rows):
        bare = [row.line for row in rows if not row.values["split"]]
        if bare:
            problems.append(f"line {bare[0]}: no split, though other rows have one ({len(bare)} such rows)")
    listing = Listing()
    first: dict[str, tuple[_Row, Candidate]] = {}
    for row in rows:
        candidate = _candidate(row, file.parent)
        key = os.path.normpath(candidate.path)
        seen, twin = first.setdefault(key, (row, candidate))
        if seen is row:
            _list_one(candidate, row, listing)
        elif (twin.label, twin.split, twin.group) == (candidate.label, candidate.split, candidate.group):
            listing.exclusions.append(Exclusion(candidate.path, f"line {row.line}: listed in line {seen.line} already"))
        else:
            problems.append(
                f"line {row.line}: {row.values['path']} is listed with another label or split in line {seen.line}"
            )
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise DataError(f"{file}: {'; '.join(problems[:3])}{more}")
    _check_paths(file, [row for row, _ in first.values()], listing)
    return listing


def _check_paths(file: Path, rows: Sequence[_Row], listing: Listing) -> None:
    """Raises DataError if no path exists; if most paths do not exist, it records a fault."""
    missing = {exclusion.path for exclusion in listing.exclusions if exclusion.reason.endswith(_GONE)}
    if not missing or 2 * len(missing) <= len(rows):
        return
    lost = [row for row in rows if file.parent / row.values["path"] in missing]
    text = explain(lost[0].values["path"], file.parent)
    if len(missing) == len(rows):
        raise DataError(f"{file}: none of its {len(rows):,} paths exists; line {lost[0].line}: {text}")
    many = f"{len(missing):,} of the {len(rows):,} paths in {file.name} do not exist; line {lost[0].line}: {text}"
    listing.faults.append(Finding("warning", "missing-paths", many))


def _list_one(candidate: Candidate, row: _Row, listing: Listing) -> None:
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


def _candidate(row: _Row, base: Path) -> Candidate:
    split, path = row.values.get("split", ""), Path(row.values["path"])
    return Candidate(
        path=other_form(base / path),
        label=nfc(row.values["label"]),
        split=split_of(split) if split else None,
        group=nfc(row.values.get("group", "")) or None,
        inside=path.parts[:-1],
    )


def _is_sound(row: _Row, problems: list[str]) -> bool:
    found = [f"no {name}" for name in _REQUIRED if not row.values[name]]
    split = row.values.get("split", "")
    if split and split_of(split) is None:
        found.append(f"unknown split '{split}' (use train, val or test)")
    problems.extend(f"line {row.line}: {text}" for text in found)
    return not found


def _rows(file: Path, problems: list[str]) -> Iterator[_Row]:
    """The rows' known columns, stripped of blanks; each row of wrong length adds a line to ``problems``."""
    line = 1
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            delimiter = max(_DELIMITERS, key=stream.readline().count)
            stream.seek(0)
            reader = csv.reader(stream, delimiter=delimiter, strict=True)
            columns = _header(file, next(reader, []))
            for cells in reader:
                line = reader.line_num
                if not any(cell.strip() for cell in cells):
                    continue
                if len(cells) != len(columns):
                    problems.append(f"line {line}: {len(cells)} cells, but the header has {len(columns)}")
                    continue
                named = {name: cell.strip() for name, cell in zip(columns, cells, strict=True)}
                yield _Row(line, {name: cell for name, cell in named.items() if name in _COLUMNS})
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8 text; save it as 'CSV UTF-8'") from error
    except csv.Error as error:
        raise DataError(f"{file}: after line {line}: {error}") from error
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from error


def _header(file: Path, cells: list[str]) -> list[str]:
    columns = [visible(cell).strip().lower() for cell in cells]
    missing = [name for name in _REQUIRED if name not in columns]
    if missing:
        raise DataError(
            f"{file}: line 1 names no column {' and no column '.join(missing)}; "
            "the header must be path,label[,split][,group]"
        )
    for name in _COLUMNS:
        if columns.count(name) > 1:
            raise DataError(f"{file}: line 1 names the column {name} twice")
    for column in columns:
        close = nearest(column, [name for name in _COLUMNS if name not in columns], cutoff=0.7)
        if close is not None:
            raise DataError(
                f"{file}: line 1 names a column '{column}'; rename it to '{close}' if that is meant, "
                "or to something else"
            )
    return columns

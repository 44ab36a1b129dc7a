"""Parquet files: images as bytes or as paths, with labels, as pandas, Spark and the library datasets write them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tl_kit.class_names import nfc
from tl_kit.config import DataConfig
from tl_kit.data.forms.columns import Columns, find_columns
from tl_kit.data.forms.image_cells import holds_files, image_of, paths_in, sole_holder
from tl_kit.data.forms.local_copies import CopyTerms, Room, copy_of, key_of
from tl_kit.data.forms.named_files import NamedFiles
from tl_kit.data.forms.rows import RowWriter, list_rows, no_rows, split_in_name, text_of_label
from tl_kit.data.forms.unused_columns import UnusedColumns
from tl_kit.data.listing import Candidate, Listing, named_split, split_of
from tl_kit.data.manifest import Exclusion
from tl_kit.errors import DataError, first_line
from tl_kit.optional_packages import check_packages

__all__ = ["list_parquet"]

_BATCH = 64  # rows read at once: they may hold large images


def list_parquet(files: Sequence[Path], shown: Path, config: DataConfig, terms: CopyTerms) -> Listing:
    """Candidates of one data set in one or several Parquet files, ``shown`` to people as one path.

    The image column holds bytes, or a structure of ``bytes`` and ``path``, or paths relative to the file's folder; the
    columns are found as in :func:`find_columns`, and a column of bytes without such a name if there is one alone.
    Paths of another machine are found by one replacement of their first folders (:meth:`NamedFiles.moved`). Columns may
    be categories (dictionaries). Labels may be indices of names that the library datasets keeps in the file
    (``ClassLabel``). Splits stand in a column ``split``, or else in the names of the files or of their folders. Rows
    without image or label become exclusions. Images that are bytes are written into a local copy, unchanged.

    Raises DataError if pyarrow is missing, for a damaged file, where no row has an image and a label, for one path with
    two labels, and as :func:`find_columns` and :func:`holds_files` do.
    """
    check_packages(str(shown), "pyarrow", extra="data", error=DataError)
    files = sorted(files)
    splits = [_split_of_file(file, shown, len(files) > 1 or None) for file in files]
    if len(set(splits)) > 1 and None in splits:
        bare = files[splits.index(None)].name
        raise DataError(f"{shown}: some of its files name a split, but {bare} does not; rename it, or move it away")
    tables = [_Table(file, split, shown, config) for file, split in zip(files, splits, strict=True)]
    kinds = {table.holds_bytes for table in tables}
    if len(kinds) > 1:
        raise DataError(f"{shown}: some of its files hold images, others paths; name one of them")
    if not kinds.pop():
        listing = Listing(table=True)
        unused = _Unused()
        for table in tables:
            _list_paths(table, listing, unused.of(table))
        unused.tell(listing, splits_known=any(each.split for each in listing.candidates))
        if not listing.candidates and {each.reason.partition(": ")[2] for each in listing.exclusions} <= {"no label"}:
            raise no_rows(str(shown), len(listing.exclusions), "no label", tables[0].label)
        return listing

    def fill(folder: Path, room: Room) -> None:
        writer = RowWriter(folder, room)
        terms.reporter.start("read table", sum(table.count for table in tables))
        unused = _Unused()
        for table in tables:
            named = NamedFiles(table.file.parent, table.texts)
            taken: dict[Path, str] = {}
            for number, image, label, split, group in table.rows(unused.of(table)):
                where = f"row {number}" if len(files) == 1 else f"{table.file.name} row {number}"
                name, data, reason = _image_in(image, named, taken, f"{table.file}: row {number}")
                if data is None or label is None:
                    writer.leave(where, reason or "no label")
                else:
                    writer.add(data, name=name, label=label, split=split, group=group, where=where)
                terms.reporter.advance()
            if named.elsewhere:
                writer.notes.append(named.elsewhere_note(table.count, table.file.name))
        unused.tell(writer, splits_known=any(split for _, _, split, *_ in writer.rows))
        writer.finish(tables[0].label)

    settings = ("parquet", str(config.image_column), str(config.label_column), *map(str, splits))
    key = key_of(files, *settings, reporter=terms.reporter)
    folder = copy_of(str(shown), key, fill=fill, terms=terms)
    listing = list_rows(folder)
    listing.copied.append((folder, shown))
    return listing


class _Table:
    """One Parquet file, its columns, and the class names that it keeps."""

    def __init__(self, file: Path, split: str | None, shown: Path, config: DataConfig) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        self.file, self.split = file, split
        self._errors = (pa.ArrowException, OSError)
        try:
            schema = parquet.read_schema(file)
            self.count = int(parquet.read_metadata(file).num_rows)
        except self._errors as error:
            raise DataError(f"{file}: cannot be read as Parquet ({first_line(error)})") from error
        self.columns = _columns(schema, file, config)
        once = {name for name, count in Counter(schema.names).items() if count == 1}
        self._plain = {
            place: name
            for place, name in enumerate(schema.names)
            if name in once and _is_plain(schema.field(place).type)
        }
        self._read = parquet.ParquetFile
        self.holds_bytes = holds_files(schema, self.columns.names[self.columns.path], str(file))
        assert self.columns.label is not None
        self.label = self.columns.names[self.columns.label]
        self.names = _class_names(schema, self.label)

    def texts(self) -> Iterator[tuple[str]]:
        """The paths of all rows."""
        with self._read(self.file) as stream:
            yield from paths_in(stream, self.columns.names[self.columns.path])

    def _gather(self, batch: Any, unused: UnusedColumns) -> None:
        for place in unused.live:
            if place in self._plain:
                counts = batch.column(self._plain[place]).value_counts().to_pylist()
                unused.add_counts(place, [(count["values"], count["counts"]) for count in counts])

    def rows(self, unused: UnusedColumns) -> Iterator[tuple[int, Any, str | None, str | None, str | None]]:
        """Number, image, label, split and group of each row, from 1. ``unused`` gathers the other columns' cells."""
        names, places = self.columns.names, self.columns
        assert places.label is not None
        wanted = [
            names[place] for place in (places.path, places.label, places.split, places.group) if place is not None
        ]
        number = 0
        try:
            with self._read(self.file) as stream:
                plain = [name for place, name in self._plain.items() if place in unused.live]
                for batch in stream.iter_batches(batch_size=_BATCH, columns=list(dict.fromkeys([*wanted, *plain]))):
                    self._gather(batch, unused)
                    for row in batch.select(wanted).to_pylist():
                        number += 1
                        where = f"{self.file}: row {number}"
                        label = text_of_label(row[names[places.label]], self.names, where)
                        group = None if places.group is None else row[names[places.group]]
                        split = self.split if places.split is None else named_split(row[names[places.split]], where)
                        yield number, row[names[places.path]], label, split, None if group is None else str(group)
        except self._errors as error:
            raise DataError(f"{self.file}: after row {number}: {first_line(error)}") from error


def _is_plain(kind: Any) -> bool:
    """True for texts, numbers and booleans, and for categories of them."""
    import pyarrow as pa

    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    texts = (pa.types.is_string, pa.types.is_large_string, getattr(pa.types, "is_string_view", pa.types.is_string))
    tests = (*texts, pa.types.is_integer, pa.types.is_boolean, pa.types.is_floating)
    return any(test(kind) for test in tests)


class _Unused:
    """The unused columns of several files, together where their headers are the same."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, ...], UnusedColumns] = {}
        self._columns: dict[str, None] = {}

    def of(self, table: _Table) -> UnusedColumns:
        """The collector for a file's rows."""
        if (note := table.columns.note()) is not None:
            self._columns[note] = None
        return self._found.setdefault(table.columns.names, UnusedColumns(table.columns))

    def tell(self, found: Listing | RowWriter, *, splits_known: bool) -> None:
        """Add faults and notes, once all rows were read; ``splits_known``: some of them has a split."""
        found.notes += self._columns
        for each in self._found.values():
            each.tell(found, splits_known=splits_known)


def _columns(schema: Any, file: Path, config: DataConfig) -> Columns:
    image = config.image_column or sole_holder(schema)
    return find_columns(schema.names, str(file), image=image, label=config.label_column)


def _class_names(schema: Any, column: str) -> list[str] | None:
    """The names that the library datasets writes beside a column of indices."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[column]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return [str(name) for name in names] if isinstance(names, list) else None


def _image_in(cell: Any, files: NamedFiles, taken: dict[Path, str], where: str) -> tuple[str | None, bytes | None, str]:
    """Name and bytes of an image in a cell, or the reason why there are none.

    A structure may name a file instead of holding it, as the machine called it where the table was written.
    """
    name, data = image_of(cell)
    if data is not None or name is None:
        return name, data, "" if data is not None else "no image"
    found = files.moved(name)
    if isinstance(found, str):
        raise DataError(f"{where}: {found}")
    if found.is_file() and taken.setdefault(found, name) != name:
        raise DataError(f"{where}: {name} and {taken[found]} would be one file, {found}: one is not there")
    data = found.read_bytes() if found.is_file() else None
    return name, data or None, "" if data else f"no such file: {name}"


def _list_paths(table: _Table, listing: Listing, unused: UnusedColumns) -> None:
    files = NamedFiles(table.file.parent, table.texts)
    taken: dict[Path, tuple[int, str, Candidate]] = {}
    for number, cell, label, split, group in table.rows(unused):
        text, where = image_of(cell)[0], f"{table.file}: row {number}"
        path = files.moved(text) if text else table.file / f"row {number}"
        if isinstance(path, str):
            raise DataError(f"{where}: {path}")
        if not text or label is None or not path.is_file():
            reason = "no path" if not text else "no label" if label is None else "no such file"
            listing.exclusions.append(Exclusion(path, f"row {number}: {reason}"))
            continue
        inside = Path(text).parts[:-1]
        candidate = Candidate(path, nfc(label), split, nfc(group) if group else None, inside)
        before, name, twin = taken.setdefault(path, (number, text, candidate))
        if before == number:
            listing.candidates.append(candidate)
        elif name != text:
            raise DataError(f"{where}: {text} and {name} in row {before} would be one file, {path}: one is not there")
        elif (twin.label, twin.split, twin.group) != (candidate.label, candidate.split, candidate.group):
            raise DataError(f"{where}: {text} is listed with another label, split or group in row {before}")
        else:
            listing.exclusions.append(Exclusion(path, f"row {number}: listed in row {before} already"))
    if files.elsewhere:
        listing.notes.append(files.elsewhere_note(table.count, table.file.name))


def _split_of_file(file: Path, shown: Path, several: bool | None) -> str | None:
    """Find the split in the file's name or its folder's; None for a file given alone, which is a whole data set."""
    if several is None:
        return None
    return split_in_name(file.name, str(shown)) or split_of(file.parent.name)

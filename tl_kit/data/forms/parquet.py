"""Parquet files: images as bytes or as paths, with labels, as pandas, Spark and the library datasets write them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tl_kit.class_names import nfc
from tl_kit.config import DataConfig, DecodeConfig
from tl_kit.data.forms.columns import Columns, find_columns
from tl_kit.data.forms.local_copies import Room, copy_of, key_of
from tl_kit.data.forms.named_files import NamedFiles
from tl_kit.data.forms.optional import needed
from tl_kit.data.forms.rows import RowWriter, list_rows, split_in_name, text_of_label
from tl_kit.data.listing import Candidate, Listing, named_split, split_of
from tl_kit.data.manifest import Exclusion
from tl_kit.errors import DataError, first_line

__all__ = ["list_parquet"]

_BATCH = 64  # rows read at once: they may hold large images


def list_parquet(files: Sequence[Path], shown: Path, config: DataConfig, decode: DecodeConfig) -> Listing:
    """Candidates of one data set in one or several Parquet files, ``shown`` to people as one path.

    The image column holds bytes, or a structure of ``bytes`` and ``path``, or paths relative to the file's folder; the
    columns are found as in :func:`find_columns`, and a column of bytes without such a name if there is one alone.
    Labels may be indices of names that the library datasets keeps in the file (``ClassLabel``). Splits stand in a
    column ``split``, or else in the names of the files or of their folders. Rows without image or label become
    exclusions. Images that are bytes are written into a local copy, unchanged.

    Raises DataError if pyarrow is missing, for a damaged file, and as :func:`find_columns` does.
    """
    needed("pyarrow", "Parquet")
    files = sorted(files)
    splits = [_split_of_file(file, len(files) > 1 or None) for file in files]
    if len(set(splits)) > 1 and None in splits:
        bare = files[splits.index(None)].name
        raise DataError(f"{shown}: some of its files name a split, but {bare} does not; rename it, or move it away")
    tables = [_Table(file, split, shown, config) for file, split in zip(files, splits, strict=True)]
    kinds = {table.holds_bytes for table in tables}
    if len(kinds) > 1:
        raise DataError(f"{shown}: some of its files hold images, others paths; name one of them")
    if not kinds.pop():
        listing = Listing(table=True)
        for table in tables:
            _list_paths(table, listing)
        return listing

    def fill(folder: Path, room: Room) -> None:
        writer = RowWriter(folder, room)
        for table in tables:
            for number, image, label, split, group in table.rows():
                name, data = _bytes_of(image, table.file)
                where = f"row {number}" if len(files) == 1 else f"{table.file.name} row {number}"
                if data is None or label is None:
                    writer.leave(where, "no image" if data is None else "no label")
                else:
                    writer.add(data, name=name, label=label, split=split, group=group)
        writer.notes += [note for note in {table.columns.note(): 0 for table in tables} if note]
        writer.finish()

    settings = ("parquet", str(config.image_column), str(config.label_column), *map(str, splits))
    folder = copy_of(str(shown), key_of(files, *settings), fill=fill, config=decode)
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
        except self._errors as error:
            raise DataError(f"{file}: cannot be read as Parquet ({first_line(error)})") from error
        self.columns = _columns(schema, file, config)
        self._read = parquet.ParquetFile
        kind = schema.field(self.columns.path).type
        self.holds_bytes = not (pa.types.is_string(kind) or pa.types.is_large_string(kind))
        assert self.columns.label is not None
        self.names = _class_names(schema, self.columns.names[self.columns.label])

    def rows(self) -> Iterator[tuple[int, Any, str | None, str | None, str | None]]:
        """Number, image, label, split and group of each row, from 1."""
        names, places = self.columns.names, self.columns
        assert places.label is not None
        wanted = [
            names[place] for place in (places.path, places.label, places.split, places.group) if place is not None
        ]
        number = 0
        try:
            with self._read(self.file) as stream:
                for batch in stream.iter_batches(batch_size=_BATCH, columns=wanted):
                    for row in batch.to_pylist():
                        number += 1
                        where = f"{self.file}: row {number}"
                        label = text_of_label(row[names[places.label]], self.names, where)
                        group = None if places.group is None else row[names[places.group]]
                        split = self.split if places.split is None else named_split(row[names[places.split]], where)
                        yield number, row[names[places.path]], label, split, None if group is None else str(group)
        except self._errors as error:
            raise DataError(f"{self.file}: after row {number}: {first_line(error)}") from error


def _columns(schema: Any, file: Path, config: DataConfig) -> Columns:
    import pyarrow as pa

    image = config.image_column
    if image is None:
        holders = [entry.name for entry in schema if pa.types.is_struct(entry.type) or _is_binary(entry.type)]
        image = holders[0] if len(holders) == 1 else None
    return find_columns(schema.names, str(file), image=image, label=config.label_column)


def _is_binary(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


def _class_names(schema: Any, column: str) -> list[str] | None:
    """The names that the library datasets writes beside a column of indices."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = features[column]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return [str(name) for name in names] if isinstance(names, list) else None


def _bytes_of(image: Any, file: Path) -> tuple[str | None, bytes | None]:
    """Name and bytes of an image in a cell; a structure may name a file beside the table instead of holding it."""
    if not isinstance(image, dict):
        return None, image if isinstance(image, bytes) and image else None
    name, data = image.get("path"), image.get("bytes")
    name = name if isinstance(name, str) else None
    if data is None and name:
        found = NamedFiles(file.parent).find(name)
        data = found.read_bytes() if isinstance(found, Path) and found.is_file() else None
    return name, data if isinstance(data, bytes) and data else None


def _list_paths(table: _Table, listing: Listing) -> None:
    files = NamedFiles(table.file.parent)
    for number, text, label, split, group in table.rows():
        path = files.find(text) if text else table.file / f"row {number}"
        if isinstance(path, str):
            raise DataError(f"{table.file}: row {number}: {path}")
        if not text or label is None or not path.is_file():
            reason = "no path" if not text else "no label" if label is None else "no such file"
            listing.exclusions.append(Exclusion(path, f"row {number}: {reason}"))
            continue
        inside = Path(text).parts[:-1]
        listing.candidates.append(Candidate(path, nfc(label), split, nfc(group) if group else None, inside))
    if (note := table.columns.note()) is not None:
        listing.notes.append(note)


def _split_of_file(file: Path, several: bool | None) -> str | None:
    """The split in the file's name or in that of its folder; None for a file alone, which is a whole data set."""
    if several is None:
        return None
    return split_in_name(file.stem) or split_of(file.parent.name)

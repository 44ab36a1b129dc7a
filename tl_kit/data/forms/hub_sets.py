"""Data sets of the library datasets: folders that ``save_to_disk`` wrote, and data sets on the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tl_kit.config import DataConfig
from tl_kit.data.forms.columns import find_columns
from tl_kit.data.forms.image_cells import image_of
from tl_kit.data.forms.local_copies import CopyTerms, Room, copy_of, key_of
from tl_kit.data.forms.rows import RowWriter, list_rows, text_of_label
from tl_kit.data.forms.unused_columns import UnusedColumns
from tl_kit.data.listing import Listing, named_split, split_of
from tl_kit.errors import DataError, first_line
from tl_kit.optional_packages import check_packages
from tl_kit.reporting import Reporter

__all__ = ["is_saved_set", "list_hub_set", "list_saved_set"]


def is_saved_set(folder: Path) -> bool:
    """True for a folder that ``save_to_disk`` wrote."""
    return (folder / "dataset_dict.json").is_file() or all(
        (folder / name).is_file() for name in ("state.json", "dataset_info.json")
    )


def list_saved_set(folder: Path, config: DataConfig, terms: CopyTerms) -> Listing:
    """Candidates of a folder that ``save_to_disk`` wrote: see :func:`list_hub_set`."""
    check_packages(str(folder), "datasets", extra="data", error=DataError)
    import datasets

    try:
        loaded = datasets.load_from_disk(str(folder))
    except Exception as error:  # the library names no class of errors for damaged folders
        raise DataError(f"{folder}: cannot be read as a saved data set ({first_line(error)})") from error
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("cache-"))
    key = key_of(files, "saved", str(config.image_column), str(config.label_column))
    return _written(loaded, folder, key, config, terms)


def list_hub_set(name: str, shown: Path, config: DataConfig, terms: CopyTerms) -> Listing:
    """Candidates of a data set on the hub, ``OWNER/NAME`` or ``OWNER/NAME:CONFIGURATION``, by the library datasets.

    Its splits are kept, names of a ``ClassLabel`` become class names, and bytes are written into a local copy as they
    are. Images without label (-1) are left out. No code from the hub is run. The library keeps its own copy of the
    download, in the cache of Hugging Face.

    Raises DataError if the library is missing, the data set cannot be had or is larger than ``copy_gb``, as
    :func:`find_columns` does, and for a split of another name than train, validation and test.
    """
    check_packages(str(shown), "datasets", extra="data", error=DataError)

    path, _, part = name.partition(":")
    terms.reporter.start("load", 1)
    try:
        with _without_bars():
            loaded = _loaded(path, part or None, shown, terms)
    except DataError:
        raise
    except Exception as error:  # the library and its network raise of many kinds
        raise DataError(f"{shown}: cannot be had from the hub ({first_line(error)})") from error
    terms.reporter.advance()
    splits = loaded if isinstance(loaded, dict) else {"train": loaded}
    prints = [f"{split}\t{entry._fingerprint}" for split, entry in splits.items()]
    return _written(
        loaded, shown, key_of([], "hub", *prints, str(config.image_column), str(config.label_column)), config, terms
    )


def _loaded(path: str, part: str | None, shown: Path, terms: CopyTerms) -> Any:
    import datasets

    size = datasets.load_dataset_builder(path, part).info.download_size or 0
    if size > terms.bounds.copy_gb * 1e9:
        limit = f"--copy-size {terms.bounds.copy_gb:g} GB"
        raise DataError(f"{shown}: {size / 1e9:.1f} GB, more than {limit}; raise it")
    return datasets.load_dataset(path, part)


@contextmanager
def _without_bars() -> Iterator[None]:
    """The library's own bars are shown also where nobody looks, and into files."""
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _written(loaded: Any, shown: Path, key: str, config: DataConfig, terms: CopyTerms) -> Listing:
    splits = dict(loaded) if isinstance(loaded, dict) else {"": loaded}
    unknown = next((name for name in splits if name and split_of(name) is None), None)
    if unknown is not None:
        raise DataError(f"{shown}: has a split '{unknown}', which is neither train, validation nor test")

    def fill(folder: Path, room: Room) -> None:
        writer = RowWriter(folder, room)
        terms.reporter.start("read table", sum(len(entry) for entry in splits.values()))
        label = ""
        for name, entry in splits.items():
            label = _write(entry, name, shown, config, writer, terms.reporter)
        writer.finish(label)

    folder = copy_of(str(shown), key, fill=fill, terms=terms)
    listing = list_rows(folder)
    listing.copied.append((folder, shown))
    return listing


def _write(entry: Any, split: str, shown: Path, config: DataConfig, writer: RowWriter, reporter: Reporter) -> str:
    """Write the rows of one split; returns the column of labels."""
    import datasets

    place = f"{shown}, {split}" if split else str(shown)
    pictures = [name for name, kind in entry.features.items() if isinstance(kind, datasets.Image)]
    image = config.image_column or (pictures[0] if len(pictures) == 1 else None)
    columns = find_columns(entry.column_names, place, image=image, label=config.label_column)
    assert columns.label is not None
    image, label = columns.names[columns.path], columns.names[columns.label]
    kind = entry.features[label]
    names = list(kind.names) if isinstance(kind, datasets.ClassLabel) else None
    if isinstance(entry.features[image], datasets.Image):
        entry = entry.cast_column(image, datasets.Image(decode=False))  # the file's bytes, not pixels
    unused = UnusedColumns(columns)
    for number, row in enumerate(entry, start=1):
        reporter.advance()
        unused.add(
            [cell if isinstance(cell := row.get(each), str | int | float) else None for each in entry.column_names]
        )
        where = f"{split or 'rows'} row {number}"
        cell = row[image]
        name, data = image_of(cell)
        if data is None and name and Path(name).is_file():
            data = Path(name).read_bytes()
        text = text_of_label(row[label], names, f"{place}: row {number}")
        if not data or text is None:
            writer.leave(where, "no label" if data else "no image")
            continue
        group = None if columns.group is None else row[columns.names[columns.group]]
        given = split_of(split) if split else None
        if columns.split is not None and not split:
            given = named_split(row[columns.names[columns.split]], f"{place}: row {number}")
        named = None if group is None else str(group)
        writer.add(data, name=name, label=text, split=given, group=named, where=where)
    unused.tell(writer, splits_known=bool(split) or any(given for _, _, given, *_ in writer.rows))
    return label

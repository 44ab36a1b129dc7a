"""Reading of a data set in any form: each becomes the files, labels, splits and groups of a Listing."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from urllib.parse import unquote

from tl_kit.config import DataConfig, DecodeConfig
from tl_kit.data.archives import unpacking
from tl_kit.data.csvfile import list_csv
from tl_kit.data.folders import holds_image, list_folder
from tl_kit.data.forms.annotations import EXPORTS, is_export, list_export
from tl_kit.data.forms.hub_sets import is_saved_set, list_hub_set, list_saved_set
from tl_kit.data.forms.local_copies import UNPACKED, CopyTerms, Room, copy_of, key_of
from tl_kit.data.forms.parquet import list_parquet
from tl_kit.data.forms.remote import fetch, hidden_login
from tl_kit.data.forms.shards import are_pairs, list_pairs
from tl_kit.data.forms.text_table import TEXT_TABLES, open_table
from tl_kit.data.forms.unpacking import archive_kind, members_of, unpack
from tl_kit.data.listing import EXPECTED, Listing, name_some, split_of
from tl_kit.data.manifest import Exclusion
from tl_kit.errors import DataError
from tl_kit.file_kinds import TAR_ENDINGS, address_of
from tl_kit.reporting import SILENT, UNKNOWN, Reporter

__all__ = ["list_data", "place_of"]

_LEFT_OUT = "left-out.txt"
_PARQUET = (".parquet", ".pq")
_HUB = "hf:"
_HERE = "file://"
_DEEPEST = 8  # nested folders that each contain nothing but one folder


def place_of(path: Path | str) -> Path:
    """The path of a data set for records and messages: an absolute one, or an address without logins."""
    address = address_of(path)
    if address is None:
        return Path(path).absolute()
    if address.startswith(_HERE):
        return Path("/" + unquote(address.removeprefix(_HERE).removeprefix("localhost/")))
    return Path(hidden_login(address))


def list_data(root: Path, config: DataConfig, decode: DecodeConfig, reporter: Reporter = SILENT) -> Listing:
    """Candidates of a folder, a file or an address, in any of the forms in docs/data.md.

    Archives, images in tables and what an address names are copied into the user's cache (:func:`copy_of`), where
    nothing has changed not again; ``reporter`` shows how far that is. Raises DataError, which names ``root`` and not
    the copy.
    """
    shown, terms = place_of(root), CopyTerms(decode, reporter)
    listing = _listed(root, shown, config, terms)
    _check_splits(listing, shown)
    return listing


def _listed(root: Path, shown: Path, config: DataConfig, terms: CopyTerms) -> Listing:
    address = address_of(root)
    if address is None:
        return _local(shown, shown, config, terms)
    if address.startswith(_HERE):
        return _local(shown, shown, config, terms)
    if "::" in address:
        raise DataError(
            f"{hidden_login(address)}: is a chain of addresses; give the address of the archive alone, "
            f"{hidden_login(address).rpartition('::')[2]}, "
            "which is unpacked here"
        )
    if address.startswith(_HUB) and not address.startswith("hf://"):
        return list_hub_set(address.removeprefix(_HUB), Path(address), config, terms)
    if (name := _hub_name(address)) is not None:
        return list_hub_set(name, shown, config, terms)
    return _local(fetch(address, terms), shown, config, terms)


def _check_splits(listing: Listing, shown: Path) -> None:
    """Raises DataError where a part of the images has a split: in which one are the others?"""
    bare = [candidate.path for candidate in listing.candidates if candidate.split is None]
    if bare and len(bare) < len(listing.candidates):
        path = next(
            (name / bare[0].relative_to(own) for own, name in listing.copied if bare[0].is_relative_to(own)), bare[0]
        )
        raise DataError(
            f"{shown}: {len(bare):,} of its {len(listing.candidates):,} images have no split, though others have one; "
            f"the first: {path}; name the split of all, or of none"
        )


def _hub_name(address: str) -> str | None:
    """OWNER/NAME of ``hf://datasets/OWNER/NAME``; deeper paths, and those of other kinds, are files."""
    kind, _, rest = address.removeprefix("hf://").partition("/")
    parts = rest.strip("/").split("/")
    return "/".join(parts) if address.startswith("hf://") and kind == "datasets" and len(parts) == 2 else None


def _local(place: Path, shown: Path, config: DataConfig, terms: CopyTerms) -> Listing:
    """The listing of a path on this machine, called ``shown`` in messages."""
    try:
        mode = place.stat().st_mode
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        problem = "no such file or folder" if missing else f"cannot be read: {error.strerror}"
        raise DataError(f"{shown}: {problem}; {EXPECTED}") from error
    if stat.S_ISDIR(mode):
        return _called(place, shown, lambda: _folder(place, shown, config, terms))
    if stat.S_ISREG(mode):
        return _called(place, shown, lambda: _file(place, shown, config, terms))
    raise DataError(f"{shown}: neither a folder nor a regular file; {EXPECTED}")


def _file(file: Path, shown: Path, config: DataConfig, terms: CopyTerms) -> Listing:
    ending = file.suffix.lower()
    if ending in TEXT_TABLES:
        return list_csv(file, config)
    if ending in _PARQUET:
        return list_parquet([file], shown, config, terms)
    if ending in EXPORTS and is_export(file):
        return list_export(file)
    if hint := unpacking(file):
        raise DataError(f"{shown}: {hint}")
    if archive_kind(file) is not None:
        return _archives([file], shown, config, terms)
    is_json = ending == ".json"
    what = "is no JSON, or none of an export (COCO, Label Studio)" if is_json else "none of the forms of a data set"
    raise DataError(f"{shown}: {what}; {EXPECTED}")


def _folder(folder: Path, shown: Path, config: DataConfig, terms: CopyTerms, *, copied: bool = False) -> Listing:
    """A folder as it is: a saved set, Parquet files, shards, pairs, class folders, or a table with images."""
    if is_saved_set(folder):
        return list_saved_set(folder, config, terms)
    top, files, folders = _unwrapped(folder)
    inner = [file for below in folders for file in _inside(below)[0]]
    tables = _ending_in(_PARQUET, files) or _ending_in(_PARQUET, inner)
    if tables and not any(map(holds_image, folders)):
        return list_parquet(tables, shown, config, terms)
    shards = _ending_in(TAR_ENDINGS, files) or _ending_in(TAR_ENDINGS, inner)
    if shards and not copied and not any(map(holds_image, folders)):
        return _archives(shards, shown, config, terms, top=top)
    if _ending_in((".cls",), files):
        return list_pairs([(top.name, top, files)], shown, config, beside=None)
    try:
        listing = list_folder(folder)
    except DataError:
        table = _table(top, files, folders, config)
        if table is None:
            raise
        return table()
    if len({candidate.label for candidate in listing.candidates}) < 2 or _lacks_train(listing):
        table = _table(top, files, folders, config)
        if table is not None:
            return table()
        return listing
    _check_beside(listing, top, files, folders, config, copied=copied)
    return listing


def _lacks_train(listing: Listing) -> bool:
    splits = {candidate.split for candidate in listing.candidates}
    return None not in splits and "train" not in splits


def _check_beside(
    listing: Listing, top: Path, files: Sequence[Path], folders: Sequence[Path], config: DataConfig, *, copied: bool
) -> None:
    """A table beside class folders is told of; an export in ``annotations`` is an error: its folders are no classes."""
    for each in folders:
        if each.name.lower() == "annotations":
            for file in _inside(each)[0]:
                if file.suffix.lower() in EXPORTS and is_export(file):
                    raise DataError(f"{top}: holds an export in annotations; give its path: {file}")
    for file in files:
        if file.suffix.lower() in TEXT_TABLES:
            with suppress(DataError):
                open_table(file, image=config.image_column, label=config.label_column)
                how = "unpack the archive and give its path" if copied else "give its path"
                listing.notes.append(f"the names of folders are the classes; to use {file.name} in their place, {how}")


def _table(
    folder: Path, files: Sequence[Path], folders: Sequence[Path], config: DataConfig
) -> Callable[[], Listing] | None:
    """The reading of the one table, or export, at the top of a folder that is no set of class folders; else None."""
    found: dict[str, Callable[[], Listing]] = {}
    notes = [file for below in folders if below.name.lower() == "annotations" for file in _inside(below)[0]]
    for file in [*files, *notes]:
        if file.suffix.lower() in TEXT_TABLES and file not in notes:
            try:
                open_table(file, image=config.image_column, label=config.label_column)
            except DataError:
                continue
            found[file.name] = partial(list_csv, file, config)
        elif file.suffix.lower() in EXPORTS and is_export(file):
            found[file.name] = partial(list_export, file, folder)
    if len(found) > 1:
        raise DataError(f"{folder}: holds several tables of images, {name_some(sorted(found))}: name one of them")
    if not found:
        return None
    name, read = next(iter(found.items()))

    def noted() -> Listing:
        listing = read()
        listing.notes.insert(0, f"{folder} is no set of class folders: {name} in it is read")
        return listing

    return noted


def _archives(
    files: Sequence[Path], shown: Path, config: DataConfig, terms: CopyTerms, *, top: Path | None = None
) -> Listing:
    """One archive of class folders, of a table with images or of pairs; or shards of pairs, which lie below ``top``."""
    files = sorted(files)
    places = ["" if top is None else str(number) for number in range(len(files))]

    def fill(folder: Path, room: Room) -> None:
        left: list[str] = []
        counts = [members_of(file) for file in files]
        terms.reporter.start("unpack", UNKNOWN if None in counts else sum(filter(None, counts)))
        for file, name in zip(files, places, strict=True):
            place = folder / UNPACKED / name
            place.mkdir(parents=True)
            of = str(shown) if top is None else f"{shown}: {file.name}"
            left += [
                f"{each}\t{why}" for each, why in unpack(file, place, room=room, shown=of, reporter=terms.reporter)
            ]
        text = "\n".join(" ".join(line.splitlines()) for line in left)
        (folder / _LEFT_OUT).write_text(text, encoding="utf-8", errors="surrogateescape")

    folder = copy_of(str(shown), key_of(files, "archive", *places, reporter=terms.reporter), fill=fill, terms=terms)
    content = folder / UNPACKED
    listing = _called(content, shown, lambda: _unpacked(files, content, places, shown, config, terms, top))
    for line in (folder / _LEFT_OUT).read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        name, reason = line.rsplit("\t", 1)
        listing.exclusions.append(Exclusion(shown / name.lstrip("/"), reason))
    return listing


def _unpacked(
    files: Sequence[Path],
    content: Path,
    places: Sequence[str],
    shown: Path,
    config: DataConfig,
    terms: CopyTerms,
    top: Path | None,
) -> Listing:
    """The listing of what archives held, by its kind."""
    shards = []
    for file, name in zip(files, places, strict=True):
        own = file.name if top is None or file.parent == top else f"{file.parent.name}_{file.name}"
        shards.append((own, content / name, _all_files(content / name)))
    bare = next((name for name, _, inside in shards if not are_pairs(inside)), None)
    if bare is None:
        return list_pairs(shards, shown, config, beside=top or files[0].parent)
    if top is None:
        return _folder(content, shown, config, terms, copied=True)
    raise DataError(f"{shown}: {bare} holds no pairs (key.jpg, key.cls); name one archive of class folders alone")


def _called(place: Path, shown: Path, read: Callable[[], Listing]) -> Listing:
    """``read()``, in whose notes and errors the place of a copy has the name of what it is a copy of."""
    if place == shown:
        return read()
    try:
        listing = read()
    except DataError as error:
        raise type(error)(str(error).replace(str(place), str(shown))) from error
    listing.notes = [note.replace(str(place), str(shown)) for note in listing.notes]
    listing.copied.append((place, shown))
    return listing


def _unwrapped(folder: Path) -> tuple[Path, list[Path], list[Path]]:
    """The folder itself, or the one in it that holds everything; with its files and its folders."""
    files, folders = _inside(folder)
    for _ in range(_DEEPEST):
        if files or len(folders) != 1 or split_of(folders[0].name) is not None:
            break
        folder = folders[0]
        files, folders = _inside(folder)
    return folder, files, folders


def _inside(folder: Path) -> tuple[list[Path], list[Path]]:
    """Files and folders in a folder, sorted, without hidden ones; nothing if it cannot be read."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        shown = [entry for entry in entries if not entry.name.startswith((".", "__MACOSX"))]
        folders = [Path(entry.path) for entry in shown if entry.is_dir()]
        return [Path(entry.path) for entry in shown if not entry.is_dir()], folders
    except OSError:
        return [], []


def _ending_in(endings: tuple[str, ...], files: Sequence[Path]) -> list[Path]:
    return [file for file in files if file.name.lower().endswith(endings) and file.is_file()]


def _all_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())

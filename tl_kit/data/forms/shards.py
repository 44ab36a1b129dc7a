"""WebDataset shards: pairs ``key.jpg`` and ``key.cls`` (or ``.json``, ``.txt``) in tar files, and their listing."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tl_kit.class_names import nfc
from tl_kit.config import DataConfig
from tl_kit.data.forms.columns import LABEL_NAMES, plain
from tl_kit.data.forms.pair_labels import CLS, JSON, TXT, Pair, no_label, source_of_labels
from tl_kit.data.forms.rows import split_in_name
from tl_kit.data.listing import Candidate, Listing, named_split, split_of
from tl_kit.data.manifest import Exclusion
from tl_kit.errors import DataError
from tl_kit.file_kinds import IMAGE_ENDINGS

__all__ = ["are_pairs", "list_pairs"]

_IMAGES = (*(ending[1:] for ending in IMAGE_ENDINGS), "jp2", "ppm", "pgm", "pfm", "img")
_NUMBER = re.compile(r"-?[0-9]+")
_LABELS = ("cls", "json", "txt")
_NAMES = ("classnames.txt", "classes.txt", "labels.txt", "class_names.txt")
_LARGEST = 10_000_000  # bytes of one label file
_FEW = 2000  # files that are looked at to tell pairs from class folders


def are_pairs(files: Sequence[Path]) -> bool:
    """True if the files, of one unpacked shard or folder, are pairs of an image and a label of one key.

    A ``.cls`` file says so; ``.json`` and ``.txt`` may be captions beside images in class folders: there they must lie
    in one folder.
    """
    first = [file for file in files[:_FEW] if not file.name.startswith(".")]
    if any(_ending(file) == "cls" for file in first):
        return True
    images = {(file.parent, _key(file)) for file in first if _ending(file) in _IMAGES}
    labels = {(file.parent, _key(file)) for file in first if _ending(file) in _LABELS}
    folders = {folder for folder, _ in images}
    return bool(images) and len(folders) == 1 and 2 * len(images & labels) > len(images)


def list_pairs(
    shards: Iterable[tuple[str, Path, Sequence[Path]]], shown: Path, config: DataConfig, *, beside: Path | None
) -> Listing:
    """Candidates of shards, each given as its name, the folder of its files, and these; ``shown`` to people.

    A key is a file's name up to its first dot. The label is the text of ``key.cls``; else ``label``, ``class`` ... of
    the object in ``key.json``, or the value that it is; else the text of ``key.txt``; or what ``label_column`` names.
    It is one of them for the whole set (:func:`source_of_labels`). A number is an index into the lines of
    ``classes.txt`` or ``classnames.txt`` in the shard or the folder ``beside``; without these it is the class's name.
    Split and group stand in the JSON; a split else in the shard's name, or its folder's.

    Raises DataError for two images of one key, and as :func:`source_of_labels` and :func:`text_of_label` do.
    """
    listing = Listing(table=True)
    several = list(shards)
    pairs: list[Pair] = []
    for name, folder, files in several:
        names = _class_names([folder, *([beside] if beside else [])])
        shard_split = None  # one file alone is a whole data set, whatever its name
        if len(several) > 1:
            shard_split = split_in_name(name, str(shown)) or split_of(folder.parent.name)
        for (place, key), known in _by_key(name, files, shown).items():
            image = known.get("image")
            if image is None:
                if not known.keys().isdisjoint(_LABELS):
                    listing.exclusions.append(Exclusion(place / key, "label without an image"))
                continue
            where, inside = f"{shown}: {name}: {key}", place.relative_to(folder).parts
            values, split, group = _read(known, where, config.label_column)
            pairs.append(Pair(where, image, values, names, split or shard_split, group, inside))
    source = source_of_labels(pairs, config.label_column, shown)
    unnamed = False
    for pair in pairs:
        label = pair.label(source)
        if label is None:
            reason = "no label: no .cls, .json or .txt of its key names a class" if source is None else no_label(source)
            listing.exclusions.append(Exclusion(pair.image, reason))
            continue
        unnamed = unnamed or (pair.names is None and label.isdigit())
        listing.candidates.append(Candidate(pair.image, nfc(label), pair.split, pair.group, pair.inside))
    given = {candidate.split for candidate in listing.candidates}
    if None in given and len(given) > 1:
        raise DataError(f"{shown}: some of its shards name a split, others none; name it in all (train-0000.tar)")
    if unnamed:
        listing.notes.append("classes are numbers; put their names, one a line, into classes.txt beside the shards")
    return listing


def _by_key(name: str, files: Sequence[Path], shown: Path) -> dict[tuple[Path, str], dict[str, Path]]:
    """The files of a shard by folder and key, and there by their kind: image, or an ending."""
    parts: dict[tuple[Path, str], dict[str, Path]] = defaultdict(dict)
    for file in sorted(files):
        if file.name.startswith(".") or file.name in _NAMES:
            continue
        ending = _ending(file)
        if ending in _LABELS and file.name.partition(".")[2].lower() != ending:
            continue  # 1.seg.cls is no label of 1
        kind = "image" if ending in _IMAGES else ending
        known = parts[file.parent, _key(file)]
        if kind in known and kind == "image":
            both = f"{known[kind].name} and {file.name}"
            raise DataError(f"{shown}: two images of one key in {name}: {both}")
        known[kind] = file
    return parts


def _read(known: dict[str, Path], where: str, column: str | None) -> tuple[dict[str, Any], str | None, str | None]:
    """Values of one key that may be its label, by source, with its split and group."""
    values: dict[str, Any] = {}
    about: Any = None
    if "json" in known:
        try:
            about = json.loads(_text(known["json"], where))
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}.json: is no JSON ({error})") from error
    found = {plain(key): value for key, value in about.items()} if isinstance(about, dict) else {}
    wanted = {name for tier in LABEL_NAMES for name in tier} | ({plain(column)} if column else set())
    values.update({name: value for name, value in found.items() if name in wanted})
    if about is not None and not isinstance(about, dict):
        values[JSON] = about
    if "cls" in known:
        text = _text(known["cls"], where).strip()
        values[CLS] = int(text) if _NUMBER.fullmatch(text) else text or None
    if "txt" in known:
        # Text files may be captions, in any encoding: one that is no UTF-8 is an error only if they are the labels.
        try:
            values[TXT] = _text(known["txt"], where).strip() or None
        except DataError as error:
            values[TXT] = error
    group = nfc(str(found["group"])) if found.get("group") not in (None, "") else None
    return values, named_split(found.get("split"), where), group


def _text(file: Path, where: str) -> str:
    try:
        with file.open("rb") as stream:
            return stream.read(_LARGEST).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: {file.name} is not UTF-8 text") from error


def _class_names(folders: Iterable[Path]) -> list[str] | None:
    for folder in folders:
        for name in _NAMES:
            if (folder / name).is_file():
                names = [line.strip() for line in _text(folder / name, str(folder)).rstrip().splitlines()]
                if "" in names or len(set(names)) < len(names):
                    what = "an empty line between names" if "" in names else "one name on two lines"
                    raise DataError(f"{folder / name}: has {what}; each line is the name of one index")
                return names
    return None


def _key(file: Path) -> str:
    return file.name.partition(".")[0]


def _ending(file: Path) -> str:
    return file.name.lower().rpartition(".")[2]

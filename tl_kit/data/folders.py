"""Listing a folder: class folders, or split folders that hold class folders."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from tl_kit.class_names import nfc
from tl_kit.data.archives import unpacking
from tl_kit.data.findings import Finding
from tl_kit.data.forms.unpacking import archive_kind
from tl_kit.data.listing import EXPECTED, Candidate, Listing, name_some, split_of
from tl_kit.data.manifest import HIDDEN, OWN, Exclusion
from tl_kit.data.own_output import is_own_output
from tl_kit.errors import DataError
from tl_kit.file_kinds import IMAGE_ENDINGS
from tl_kit.images.decode import sniff

__all__ = ["holds_image", "list_files", "list_folder"]

# Names, in lower case, of files that operating systems, editors and NAS boxes write into folders.
_LITTER = {"__macosx", "@eadir", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "$recycle.bin", "lost+found"}
_LITTER |= {"system volume information"}
_ENDINGS = {*IMAGE_ENDINGS, ".heic"}
_NO_TARGET = {errno.ENOENT: "dangling symbolic link", errno.ELOOP: "symbolic link in a loop"}
_DEEPEST = 8  # nested folders that each contain nothing but one folder
_LOOKED_AT = 100  # files that are checked to see whether a folder contains images
_STRAY = "stray folder next to the split folders"
_STRAY_FILE = "stray file not inside a class folder"
_PERHAPS = ("eval", "evaluation", "evaluate")


def list_folder(root: Path) -> Listing:
    """Candidates of a folder, with every file and folder that belongs to no class as an exclusion.

    Folders named as splits (:func:`split_of`) are split folders if all folders are named so, or if one is "train" and
    contains folders. Folders inside a class folder belong to that class. If a folder contains only one folder and no
    image (as after unpacking), and that folder contains folders, it is read instead. Folders that tl-kit wrote are
    skipped, at any depth. Class names are in Unicode's composed form.

    Raises :class:`DataError` if the folder cannot be read, is empty, or has two folders for one split.
    """
    listing = Listing()
    passed_over: list[Exclusion] = []
    top, folders, files = _unwrapped(root, listing, passed_over)
    if not folders:
        raise DataError(f"{top}: {_nothing(top, files, passed_over)}; {EXPECTED}")
    splits = _split_folders(top, folders)
    if not splits:
        _list_classes(top, None, listing)
        return listing
    strays = [folder for folder in folders if folder not in splits.values()]
    listing.exclusions += passed_over
    listing.exclusions += [Exclusion(folder, _stray(folder)) for folder in strays]
    listing.exclusions += [Exclusion(file, "stray file next to the split folders") for file in files]
    if len(splits) == 1 and "train" in splits:
        listing.faults += _split_or_class(splits["train"], [folder for folder in strays if holds_image(folder)])
    for split, folder in splits.items():
        _list_classes(folder, split, listing)
    return listing


def list_files(root: Path) -> tuple[list[Path], list[Exclusion]]:
    """Every file below a folder, ignoring labels, sorted by name, and the exclusions."""
    exclusions: list[Exclusion] = []
    return list(_walk(root, exclusions)), exclusions


def _unwrapped(root: Path, listing: Listing, passed_over: list[Exclusion]) -> tuple[Path, list[Path], list[Path]]:
    """The folder that contains the classes or splits, with its folders and its files."""
    top = root
    folders, files = _entries(top, passed_over)
    for _ in range(_DEEPEST):
        if len(folders) != 1 or split_of(folders[0].name) is not None or _any_image(files):
            break
        inner: list[Exclusion] = []
        within, beside = _entries(folders[0], inner)
        if not within or _any_image(beside):
            break
        listing.exclusions += [
            *passed_over,
            *(Exclusion(file, _STRAY_FILE) for file in files),
        ]
        top, folders, files = folders[0], within, beside
        passed_over[:] = inner
    if top != root:
        listing.notes.append(f"{root} holds nothing but {top.relative_to(root)}/, which is read in its place")
    return top, folders, files


def _nothing(folder: Path, files: list[Path], passed_over: list[Exclusion]) -> str:
    """The reason why a folder without subfolders has no images."""
    unreadable = [exclusion.reason for exclusion in passed_over if exclusion.path == folder]
    if unreadable:
        return unreadable[0]
    hint = next((text for file in files if (text := unpacking(file) or _archive(file))), "")
    if files:
        return f"holds {len(files)} files but no folders" + (f": {hint}" if hint else "")
    own = [exclusion for exclusion in passed_over if exclusion.reason == OWN]
    return f"holds nothing but what tl-kit wrote ({name_some([e.path.name for e in own])})" if own else "is empty"


def _archive(file: Path) -> str:
    """The remedy where the images are in an archive that lies in a folder, or in another archive."""
    if archive_kind(file) is None:
        return ""
    return f"{file.name} is an archive: name it by --data itself, unpacked from the one around it if there is one"


def _stray(folder: Path) -> str:
    is_one = folder.name.lower() in _PERHAPS
    return f"{_STRAY}; rename it to val or test if it is one" if is_one else _STRAY


def _split_or_class(train: Path, beside: list[Path]) -> list[Finding]:
    """The fault of a single split folder beside folders with images: these may be classes, or it may be one itself."""
    if not beside:
        return []
    names = name_some([folder.name for folder in beside])
    text = (
        f"'{train.name}' holds folders, and stands beside {names}, which hold images and would be left out: if it is a "
        "split, move or rename them (val, test); if it is a class, rename it, or move its images out of their folders"
    )
    return [Finding("error", "split-or-class", text, (train, *beside))]


def _split_folders(root: Path, folders: list[Path]) -> dict[str, Path]:
    """The folder of each split; empty if the folders are class folders."""
    named = [(split, folder) for folder in folders if (split := split_of(folder.name)) is not None]
    training = [folder for split, folder in named if split == "train"]
    if len(named) < len(folders) and not any(_entries(folder, [])[0] for folder in training):
        return {}
    splits: dict[str, Path] = {}
    for split, folder in named:
        if split in splits:
            raise DataError(f"{root}: both {splits[split].name}/ and {folder.name}/ mean {split}; merge or rename one")
        splits[split] = folder
    return splits


def _list_classes(parent: Path, split: str | None, listing: Listing) -> None:
    folders, files = _entries(parent, listing.exclusions)
    if split is not None and not folders:
        listing.exclusions.append(Exclusion(parent, "split folder without class folders: its files have no labels"))
        return
    listing.exclusions.extend(Exclusion(file, _STRAY_FILE) for file in files)
    if split is not None and len(folders) == 1 and split_of(folders[0].name) == split and _entries(folders[0], [])[0]:
        _list_classes(folders[0], split, listing)  # train/train/cat, as some archives unpack
        return
    first: dict[str, Path] = {}
    for folder in folders:
        label = nfc(folder.name)
        if first.setdefault(label, folder) is not folder:
            listing.notes.append(
                f"class '{label}': two folders in {parent} have this name, in composed and decomposed Unicode; "
                "they are one class"
            )
        listing.class_folders[folder] = split, label
        for file in _walk(folder, listing.exclusions):
            listing.candidates.append(Candidate(file, label, split, inside=file.relative_to(folder).parts[:-1]))


def holds_image(folder: Path) -> bool:
    """True if one of the folder's first files, at any depth, begins like an image."""
    return _any_image(_walk(folder, []))


def _any_image(files: Iterable[Path]) -> bool:
    return any(_begins_like_image(file) for file in islice(files, _LOOKED_AT))


def _begins_like_image(file: Path) -> bool:
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            return False
        with file.open("rb") as stream:
            return sniff(stream.read(16))
    except (OSError, ValueError):
        return False


def _walk(top: Path, exclusions: list[Exclusion]) -> Iterator[Path]:
    """Files below ``top``, each folder visited once: with links from each of n folders to all, there are n! paths.

    Folders come before links to folders; a link to a parent of ``top`` is not followed.
    """
    seen = {identity for parent in top.absolute().parents if (identity := _identity(parent)) is not None}
    folders, links = [top], list[Path]()  # used as stacks: the next one is last
    while folders or links:
        folder = (folders or links).pop()
        identity = _identity(folder)
        if identity in seen:
            exclusions.append(Exclusion(folder, "symbolic link to a folder that is read already"))
            continue
        if identity is not None:
            seen.add(identity)
        inner, files = _entries(folder, exclusions)
        yield from files
        if not inner and not files and folder.suffix.lower() in _ENDINGS:
            exclusions.append(Exclusion(folder, "empty folder that is named like an image"))
        for path in reversed(inner):
            (links if path.is_symlink() else folders).append(path)


def _identity(folder: Path) -> tuple[int, int] | None:
    """Device and inode, which are equal for every name of a folder; None if the system refuses access."""
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _entries(folder: Path, exclusions: list[Exclusion]) -> tuple[list[Path], list[Path]]:
    """The folders and files in a folder, each sorted by name; other entries are added to the exclusions."""
    folders: list[Path] = []
    files: list[Path] = []
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        exclusions.append(Exclusion(folder, f"cannot be read: {error.strerror}"))
        return folders, files
    for entry in entries:
        path = folder / entry.name
        if entry.name.startswith(".") or entry.name.lower() in _LITTER:
            exclusions.append(Exclusion(path, HIDDEN))
            continue
        try:
            is_folder = stat.S_ISDIR(entry.stat().st_mode) if entry.is_symlink() else entry.is_dir()
            if is_folder and is_own_output(path):
                exclusions.append(Exclusion(path, OWN))
            else:
                (folders if is_folder else files).append(path)
        except OSError as error:
            exclusions.append(Exclusion(path, _NO_TARGET.get(error.errno or 0, f"cannot be read: {error.strerror}")))
    return folders, files

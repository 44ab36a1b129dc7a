"""Listing a folder: class folders, or split folders that hold class folders."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from tl_kit.data.listing import EXPECTED, SPLIT_NAMES, Candidate, Listing, name_some
from tl_kit.data.manifest import Exclusion
from tl_kit.errors import DataError

__all__ = ["list_files", "list_folder"]

# Written by operating systems, editors and NAS boxes into other people's folders.
_LITTER = {"__MACOSX", "@eaDir", "Thumbs.db", "desktop.ini"}
_ENDINGS = {".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".avif", ".heic"}
_NO_TARGET = {errno.ENOENT: "dangling symbolic link", errno.ELOOP: "symbolic link in a loop"}


def list_folder(root: Path) -> Listing:
    """Candidates of a folder, with every file and folder that belongs to no class as an exclusion.

    Split folders count as such if they are named so (:data:`SPLIT_NAMES`, any case) and either all folders are, or
    one of them is "train" and holds folders. Folders inside a class folder belong to that class.

    Raises :class:`DataError` if the folder cannot be read, holds nothing, or has split folders without one for
    training or two for one split.
    """
    listing = Listing()
    passed_over: list[Exclusion] = []
    folders, files = _entries(root, passed_over)
    if not folders:
        found = f"holds {len(files)} files but no folders" if files else "is empty"
        unreadable = [exclusion.reason for exclusion in passed_over if exclusion.path == root]
        raise DataError(f"{root}: {unreadable[0] if unreadable else found}; {EXPECTED}")
    splits = _split_folders(root, folders)
    if not splits:
        _list_classes(root, None, listing)
        return listing
    strays = [Exclusion(folder, "stray folder next to the split folders") for folder in folders]
    strays += [Exclusion(file, "stray file next to the split folders") for file in files]
    listing.exclusions += passed_over + [stray for stray in strays if stray.path not in splits.values()]
    for split, folder in splits.items():
        _list_classes(folder, split, listing)
    return listing


def list_files(root: Path) -> tuple[list[Path], list[Exclusion]]:
    """Every file below a folder whose labels do not matter, in order of name, and what was passed over."""
    exclusions: list[Exclusion] = []
    return list(_walk(root, exclusions)), exclusions


def _split_folders(root: Path, folders: list[Path]) -> dict[str, Path]:
    """The folder of each split; empty if these are class folders."""
    named = [folder for folder in folders if folder.name.lower() in SPLIT_NAMES]
    training = [folder for folder in named if SPLIT_NAMES[folder.name.lower()] == "train"]
    if len(named) < len(folders) and not any(_entries(folder, [])[0] for folder in training):
        return {}
    splits: dict[str, Path] = {}
    for folder in named:
        split = SPLIT_NAMES[folder.name.lower()]
        if split in splits:
            raise DataError(f"{root}: both {splits[split].name}/ and {folder.name}/ mean {split}; merge or rename one")
        splits[split] = folder
    if splits and "train" not in splits:
        raise DataError(f"{root}: there is {name_some([f.name for f in named])} but no train folder; {EXPECTED}")
    return splits


def _list_classes(parent: Path, split: str | None, listing: Listing) -> None:
    folders, files = _entries(parent, listing.exclusions)
    if split is not None and not folders:
        listing.exclusions.append(Exclusion(parent, "split folder without class folders: its files have no labels"))
        return
    listing.exclusions.extend(Exclusion(file, "stray file not inside a class folder") for file in files)
    for folder in folders:
        listing.class_folders[split, folder.name] = folder
        for file in _walk(folder, listing.exclusions):
            listing.candidates.append(Candidate(file, folder.name, split))


def _walk(top: Path, exclusions: list[Exclusion]) -> Iterator[Path]:
    """Files below ``top``, of each folder once: with links from each of n folders to all, there are n! paths.

    Folders come before links to folders; a link to what ``top`` lies in is not followed.
    """
    seen = {identity for parent in top.absolute().parents if (identity := _identity(parent)) is not None}
    folders, links = [top], list[Path]()  # what is next stands last
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
    """What is the same by every name of a folder; None where it may not be asked."""
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _entries(folder: Path, exclusions: list[Exclusion]) -> tuple[list[Path], list[Path]]:
    """Folders and files in it, each sorted by name; hidden entries and links to nothing go to the exclusions."""
    folders: list[Path] = []
    files: list[Path] = []
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        exclusions.append(Exclusion(folder, f"cannot be read: {error.strerror}"))
        return folders, files
    for entry in entries:
        path = folder / entry.name
        if entry.name.startswith(".") or entry.name in _LITTER:
            exclusions.append(Exclusion(path, "hidden"))
            continue
        try:
            is_folder = stat.S_ISDIR(entry.stat().st_mode) if entry.is_symlink() else entry.is_dir()
            (folders if is_folder else files).append(path)
        except OSError as error:
            exclusions.append(Exclusion(path, _NO_TARGET.get(error.errno or 0, f"cannot be read: {error.strerror}")))
    return folders, files

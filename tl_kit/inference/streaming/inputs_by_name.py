"""Inputs of ``predict`` by name: files, folders, patterns, lists, archives and addresses."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tl_kit.config import DecodeConfig, FetchConfig, StreamConfig
from tl_kit.data.exclusions import missed
from tl_kit.data.folders import list_files
from tl_kit.data.patterns import expand
from tl_kit.errors import DataError, ImageError, InputError
from tl_kit.inference.streaming.addresses import Address, is_address
from tl_kit.inference.streaming.archive_images import ARCHIVE_ENDINGS, images_of
from tl_kit.inference.streaming.fetching import fetched
from tl_kit.inference.streaming.named import Named
from tl_kit.inference.streaming.path_list import PathList

__all__ = ["ByName"]

_EMPTY = "folder without files"
_ASK = "an address: --urls fetches it"
_LONGEST = 100


class ByName:
    """The images that ``given`` inputs stand for, in order; each given input is checked at once.

    A path with a wildcard that does not exist stands for its matches. A file found through folders or patterns comes
    once, one that is named several times, or listed, as often. Files that are named like archives are read as such.
    Raises DataError for a pattern without a match, InputError for an address that may not be fetched.
    """

    def __init__(
        self,
        given: Sequence[str | os.PathLike[str] | PathList],
        *,
        fetch: FetchConfig,
        decode: DecodeConfig,
        config: StreamConfig = StreamConfig(),
    ) -> None:
        self._fetch, self._decode, self._config = fetch, decode, config
        self._given = [(item, list(self._expanded(item))) for item in given]

    @property
    def timed(self) -> bool:
        """True if an input may pause: None comes among the images then."""
        return any(isinstance(item, PathList) for item, _ in self._given)

    @property
    def streamed(self) -> bool:
        """True if the number of images is known at the end alone."""
        found = [part for _, parts in self._given for part in parts]
        return any(not isinstance(part, Path) or _is_archive(part) for part in found)

    def images(self) -> Iterator[Named | None]:
        """Every image with its name, nothing fetched yet. Raises DataError if there is none but empty folders."""
        return self._some(self._named())

    def fetched(self, items: Iterable[Named | None]) -> Iterator[Named | None]:
        """The items with addresses fetched, where this is asked for."""
        return fetched(items, self._fetch) if self._fetch.urls else iter(items)

    def _expanded(self, item: str | os.PathLike[str] | PathList) -> Iterator[Path | Address | PathList]:
        if isinstance(item, PathList):
            yield item
            return
        text = os.fspath(item)
        if is_address(text) and not os.path.lexists(text):
            if not self._fetch.urls:
                raise InputError(f"{text[:_LONGEST]}: {_ASK}, or download it and give its path")
            yield Address(text)
            return
        yield from expand(item if isinstance(item, str) else Path(item))

    def _some(self, items: Iterator[Named | None]) -> Iterator[Named | None]:
        """The items; raises DataError if no image and no fault is among them."""
        waiting: list[Named | None] = []
        for item in items:
            if item is None or item.error == _EMPTY:
                waiting.append(item)
                continue
            yield from waiting
            yield item
            yield from items
            return
        if self.timed and not waiting:
            raise DataError("no images to predict: standard input names none")
        raise DataError("no images to predict: give image files, or folders that hold some")

    def _named(self) -> Iterator[Named | None]:
        seen = _Seen()
        for item, parts in self._given:
            for part in parts:
                if isinstance(part, PathList):
                    yield from map(self._listed, part.paths(self._config))
                elif isinstance(part, Address):
                    yield Named(part.text, part)
                elif os.path.isdir(part):  # noqa: PTH112 - Path.is_dir raises where it may not look
                    yield from (row for row in _files(part) if row.source is None or seen.first(Path(row.name)))
                elif _is_archive(part):
                    if seen.first(part) or _named_itself(item, part):
                        yield from images_of(part, self._decode)
                elif seen.first(part) or _named_itself(item, part):
                    yield Named(str(part), part)

    def _listed(self, text: str | None) -> Named | None:
        """A path of a list, as it is: no pattern, and no folder."""
        if text is None:
            return None
        if is_address(text) and not os.path.lexists(text):
            return Named(text, Address(text) if self._fetch.urls else ImageError(_ASK))
        return Named(text, Path(text))


def _named_itself(item: str | os.PathLike[str] | PathList, path: Path) -> bool:
    return not isinstance(item, PathList) and path == Path(item)


def _is_archive(path: Path) -> bool:
    return path.name.lower().endswith(ARCHIVE_ENDINGS) and path.is_file()


def _files(folder: Path) -> Iterator[Named]:
    files, exclusions = list_files(folder)
    unreadable = missed(exclusions)
    yield from (Named(str(file), file) for file in files)
    yield from (Named(str(exclusion.path), None, exclusion.reason) for exclusion in unreadable)
    if not files and not unreadable:
        yield Named(str(folder), None, _EMPTY)


class _Seen:
    """Files seen so far, by real folder and name: a linked folder holds the same files, a linked file is another."""

    def __init__(self) -> None:
        self._files: set[tuple[str, str]] = set()
        self._folders: dict[Path, str] = {}

    def first(self, path: Path) -> bool:
        """True if the file comes for the first time."""
        folder = self._folders.get(path.parent)
        if folder is None:
            folder = self._folders[path.parent] = os.path.realpath(path.parent)
        known = len(self._files)
        self._files.add((folder, path.name))
        return len(self._files) > known

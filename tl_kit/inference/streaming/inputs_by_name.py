"""Inputs of ``predict`` by name: files, folders, patterns, lists, archives and addresses."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from tl_kit.config import DecodeConfig, FetchConfig, StreamConfig
from tl_kit.data.exclusions import missed
from tl_kit.data.folders import list_files
from tl_kit.data.patterns import expand
from tl_kit.errors import DataError, ImageError, InputError
from tl_kit.file_kinds import IMAGE_ENDINGS
from tl_kit.inference.streaming.addresses import Address, is_address
from tl_kit.inference.streaming.archive_images import ARCHIVE_ENDINGS, images_of
from tl_kit.inference.streaming.fetching import fetched
from tl_kit.inference.streaming.named import Named
from tl_kit.inference.streaming.path_list import PathList
from tl_kit.inference.streaming.table_images import TABLE_ENDINGS, images_in_table

__all__ = ["ByName"]

_EMPTY = "folder without files"
_ASK = "an address: --urls fetches it"
_LONGEST = 100


@dataclass(frozen=True)
class _Holder:
    """A file that holds or names images."""

    path: Path
    read: Callable[[], Iterator[Named]]


_Part: TypeAlias = Path | Address | PathList | _Holder


class ByName:
    """The images that ``given`` inputs stand for, in order; each given input is checked at once.

    A path with a wildcard that does not exist stands for its matches. A file found through folders or patterns comes
    once, one that is named several times, or listed, as often. Files that are named like archives or tables are read as
    such; ``column`` is a table's column of images. Raises DataError for a pattern without a match and a table without
    such a column, InputError for an address that may not be fetched.
    """

    def __init__(
        self,
        given: Sequence[str | os.PathLike[str] | PathList],
        *,
        fetch: FetchConfig,
        decode: DecodeConfig,
        column: str | None = None,
        config: StreamConfig = StreamConfig(),
    ) -> None:
        self._fetch, self._decode, self._config = fetch, decode, config
        self._column = column
        self._given = [(item, list(self._expanded(item))) for item in given]

    @property
    def timed(self) -> bool:
        """True if an input may pause: None comes among the images then."""
        return any(isinstance(item, PathList) for item, _ in self._given)

    @property
    def streamed(self) -> bool:
        """True if the number of images is known at the end alone."""
        return any(not isinstance(part, Path | Address) for _, parts in self._given for part in parts)

    def holds(self, file: Path) -> bool:
        """True if ``file`` is there and a given input, or an image in a given folder."""
        if not os.path.lexists(file):
            return False
        real, image = os.path.realpath(file), file.suffix.lower() in IMAGE_ENDINGS
        found = (part.path if isinstance(part, _Holder) else part for _, parts in self._given for part in parts)
        return any(_is_in(file, real, part, image=image) for part in found if isinstance(part, Path))

    def images(self) -> Iterator[Named | None]:
        """Yield every image with its name; addresses are not fetched yet. Raises DataError if all folders are empty."""
        return self._some(self._named())

    def fetched(self, items: Iterable[Named | None]) -> Iterator[Named | None]:
        """The items with addresses fetched, where this is asked for."""
        return fetched(items, self._fetch) if self._fetch.urls else iter(items)

    def _expanded(self, item: str | os.PathLike[str] | PathList) -> Iterator[_Part]:
        if isinstance(item, PathList):
            yield item
            return
        text = os.fspath(item)
        if is_address(text) and not os.path.lexists(text):
            if not self._fetch.urls:
                raise InputError(f"{text[:_LONGEST]}: {_ASK}, or download it and give its path")
            yield Address(text)
            return
        for path in expand(item if isinstance(item, str) else Path(item)):
            yield path if (read := self._reader(path)) is None else _Holder(path, read)

    def _reader(self, path: Path) -> Callable[[], Iterator[Named]] | None:
        """A function that reads the images in a file, or that it names; None for any other."""
        name = path.name.lower()
        if not name.endswith((*ARCHIVE_ENDINGS, *TABLE_ENDINGS)) or not path.is_file():
            return None
        if name.endswith(ARCHIVE_ENDINGS):
            return lambda: images_of(path, self._decode)
        images = images_in_table(path, column=self._column, listed=self._listed)  # reads the header now
        return lambda: images

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
                    yield from (None if text is None else self._listed(text) for text in part.paths(self._config))
                elif isinstance(part, Address):
                    yield Named(part.text, part)
                elif isinstance(part, _Holder):
                    if seen.first(part.path) or _named_itself(item, part.path):
                        yield from part.read()
                elif os.path.isdir(part):  # noqa: PTH112 - Path.is_dir raises where it may not look
                    yield from (row for row in _files(part) if row.source is None or seen.first(Path(row.name)))
                elif seen.first(part) or _named_itself(item, part):
                    yield Named(str(part), part)

    def _listed(self, text: str) -> Named:
        """A path of a list, as it is: no pattern, and no folder."""
        if is_address(text) and not os.path.lexists(text):
            return Named(text, Address(text) if self._fetch.urls else ImageError(_ASK))
        return Named(text, Path(text))


def _is_in(file: Path, real: str, given: Path, *, image: bool) -> bool:
    """True if the file is ``given``, also by a hard link or another spelling; or, as an image, lies in that folder."""
    with suppress(OSError):
        if os.path.samefile(file, given):  # noqa: PTH121 - as PTH112
            return True
    return image and real.startswith(os.path.join(os.path.realpath(given), ""))  # noqa: PTH118 - as PTH112


def _named_itself(item: str | os.PathLike[str] | PathList, path: Path) -> bool:
    return not isinstance(item, PathList) and path == Path(item)


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

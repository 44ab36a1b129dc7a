"""Image files by name: paths of a table, names that lie in other folders, and ids without an ending."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from tl_kit.class_names import nfc
from tl_kit.data.lostpaths import other_form
from tl_kit.file_kinds import IMAGE_ENDINGS

__all__ = ["NamedFiles"]

_ENDINGS = (*IMAGE_ENDINGS, ".jp2", ".pgm", ".ppm", ".pfm")
_SHOWN = 3


class _Lost(NamedTuple):
    parts: tuple[str, ...]
    further: Sequence[str]


class NamedFiles:
    """Image files below a table's folder, found by the texts in its column of paths.

    A text is a path, absolute or relative to ``folder``. Without an image's ending it may be an id: the stem of one
    image beside or below ``folder``. A bare name with an ending is looked for below ``folder`` too.
    The folders are listed once, when a text is no path.
    """

    def __init__(self, folder: Path, texts: Callable[[], Iterable[Sequence[str]]] = tuple) -> None:
        """``texts``: those of the whole table, each with other names of its file, for :meth:`moved`; read if needed."""
        self.folder, self._texts = folder, texts
        self.by_name = 0
        """The number of files that were found by name or stem, and not at their path."""
        self.elsewhere = 0
        """The number of files that :meth:`moved` found in other folders than their path names."""

    def find(self, text: str) -> Path | str:
        """The path of the file that a table means: ``text`` is its path, its name, or its name without ending.

        A sentence if several files have that name. A text that names no file is returned as the path that it would be.
        Files are not opened.
        """
        path = other_form(self.folder / text)
        if "\0" in text or os.path.lexists(path):
            return path
        parts = PurePosixPath(text)
        if parts.suffix.lower() in _ENDINGS:
            found = self._names.get(nfc(text), []) if len(parts.parts) == 1 else []
        else:
            beside = self._stems.get(nfc(parts.name), []) if parts.name else []
            wanted = tuple(nfc(part) for part in parts.parent.parts)
            found = [each for each in beside if _parents(each, self.folder)[-len(wanted) :] == wanted or not wanted]
        if len(found) > 1:
            return self._several(text, found)
        if not found:
            return path
        self.by_name += 1
        return found[0]

    def moved(self, text: str, *further: str) -> Path | str:
        """As :meth:`find`; a path that leads nowhere is one of another machine.

        The folders that all texts of the table begin with, or some of the first of them, are replaced by one folder
        below ``folder``: the one where most of the lost files are then found. No row loses a folder in another way, so
        that a file that is not there never becomes another. ``further``: other names of the file.
        """
        path = self.find(text)
        if isinstance(path, str) or path.is_file() or "\0" in text:
            return path
        parts, (cut, places) = _parts(text), self._replacement
        if not places:
            return path
        rest = [PurePosixPath(*parts[cut:-1], name) for name in (*parts[-1:], *further)]
        there = [other_form(place / each) for each in rest for place in places]
        found = [file for file in there if file.is_file()]
        if len(found) > 1 and len(places) > 1:
            return self._several(text, found)
        if found and nfc(found[0].parent.name) != nfc(parts[-2] if parts[1:] else ""):
            self.elsewhere += 1
        return found[0] if found else path

    @cached_property
    def _replacement(self) -> tuple[int, list[Path]]:
        """The number of first folders that are dropped, and what stands for them; several folders are ambiguous."""
        texts = [_Lost(_parts(names[0]), names[1:]) for names in self._texts() if names[0]]
        if any((self.folder / "/".join(each.parts)).is_file() for each in texts):
            return 0, [self.folder]  # its paths are of this machine
        shared = min((len(each.parts) - 1 for each in texts), default=0)
        first = texts[0].parts if texts else ()
        for each in texts:
            same = (one == other for one, other in zip(first, each.parts[:-1], strict=False))
            shared = min(shared, next((at for at, alike in enumerate(same) if not alike), shared))
        counts: dict[tuple[int, Path], int] = defaultdict(int)
        inner = {nfc(part) for file in self._files for part in file.relative_to(self.folder).parts[:-1]}
        for cut in range(shared + 1):
            here = {nfc(part) for part in first[:cut]} & inner  # its files are not those of another folder
            for each in texts:
                for name in (each.parts[-1], *each.further):
                    tail = tuple(map(nfc, (*each.parts[cut:-1], name)))
                    files = [file for file in self._names.get(nfc(name), []) if here <= {*_parents(file, self.folder)}]
                    roots = [self._root(file, tail) for file in files]
                    for root in {root for root in roots if root is not None}:
                        counts[cut, root] += 1
        if not counts:
            return 0, []
        most = max(counts.values())
        cut = min(at for (at, _), count in counts.items() if count == most)
        return cut, sorted(root for (at, root), count in counts.items() if count == most and at == cut)

    def _root(self, file: Path, tail: tuple[str, ...]) -> Path | None:
        """The folder from which ``tail`` leads to a file; None if the file's path does not end with it."""
        inner = tuple(map(nfc, file.relative_to(self.folder).parts))
        return file.parents[len(tail) - 1] if inner[-len(tail) :] == tail else None

    def elsewhere_note(self, count: int, name: str) -> str:
        """The sentence on files that were found elsewhere, among ``count`` of the table ``name``."""
        return f"{self.elsewhere:,} of {count:,} images lie in other folders than {name} says"

    def _several(self, text: str, found: list[Path]) -> str:
        named = ", ".join(each.relative_to(self.folder).as_posix() for each in found[:_SHOWN])
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        return f"'{text}' may be {named}{more}: write the path"

    @cached_property
    def _files(self) -> list[Path]:
        """All image files below the folder, sorted; links to folders are not followed."""
        found = []
        for folder, inner, names in os.walk(self.folder):
            inner[:] = sorted(name for name in inner if not name.startswith("."))
            ours = sorted(name for name in names if not name.startswith("."))
            found += [Path(folder, name) for name in ours if name.lower().endswith(_ENDINGS)]
        return found

    @cached_property
    def _names(self) -> dict[str, list[Path]]:
        table = defaultdict(list)
        for file in self._files:
            table[nfc(file.name)].append(file)
        return dict(table)

    @cached_property
    def _stems(self) -> dict[str, list[Path]]:
        table = defaultdict(list)
        for file in self._files:
            table[nfc(file.stem)].append(file)
        return dict(table)


def _parents(file: Path, folder: Path) -> tuple[str, ...]:
    return tuple(nfc(part) for part in file.relative_to(folder).parts[:-1])


def _parts(text: str) -> tuple[str, ...]:
    return PurePosixPath(text.replace("\\", "/").lstrip("/")).parts or ("",)

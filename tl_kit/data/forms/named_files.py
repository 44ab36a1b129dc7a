"""Image files by name: paths of a table, names that lie in other folders, and ids without an ending."""

from __future__ import annotations

import os
from collections import defaultdict
from functools import cached_property
from pathlib import Path, PurePosixPath

from tl_kit.class_names import nfc
from tl_kit.data.lostpaths import other_form
from tl_kit.file_kinds import IMAGE_ENDINGS

__all__ = ["NamedFiles"]

_ENDINGS = (*IMAGE_ENDINGS, ".jp2", ".pgm", ".ppm", ".pfm")
_SHOWN = 3


class NamedFiles:
    """Image files below a table's folder, found by the texts in its column of paths.

    A text is a path, absolute or relative to ``folder``. Without an image's ending it may be an id: the stem of one
    image beside or below ``folder``. A bare name with an ending is looked for below ``folder`` too.
    The folders are listed once, when a text is no path.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
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

        Its file is then looked for below ``folder``, by as many of the path's last folders as there are, and at last by
        its name, or by one of the ``further`` names.
        """
        path = self.find(text)
        if isinstance(path, str) or path.is_file():
            return path
        parts = PurePosixPath(text.replace("\\", "/").lstrip("/")).parts
        names = ["/".join(parts[start:]) for start in range(len(parts))]
        found = next((each for each in map(self.below, (*names, *further)) if each is not None), None)
        if isinstance(found, Path) and nfc(found.parent.name) != nfc(parts[-2] if parts[1:] else ""):
            self.elsewhere += 1
        return path if found is None else found

    def elsewhere_note(self, count: int, name: str) -> str:
        """The sentence on files that were found elsewhere, among ``count`` of the table ``name``."""
        return f"{self.elsewhere:,} of {count:,} images lie in other folders than {name} says"

    def below(self, text: str) -> Path | str | None:
        """The one file below ``folder`` whose path ends with a text; a sentence for several, None for none."""
        wanted = tuple(nfc(part) for part in PurePosixPath(text).parts)
        beside = self._names.get(wanted[-1], []) if wanted else []
        folders = wanted[:-1]
        found = [each for each in beside if not folders or _parents(each, self.folder)[-len(folders) :] == folders]
        return self._several(text, found) if len(found) > 1 else next(iter(found), None)

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

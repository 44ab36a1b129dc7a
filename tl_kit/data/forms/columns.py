"""Columns of a table of images: path, label, split and group under the names that people give them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tl_kit.class_names import visible
from tl_kit.errors import DataError, nearest

__all__ = ["LABEL_NAMES", "PATH_NAMES", "Columns", "find_columns"]

# In tiers: a name of an earlier tier wins over those of later ones; two of one tier are ambiguous.
PATH_NAMES: tuple[tuple[str, ...], ...] = (
    ("path",),
    (
        *("image_path", "img_path", "file_path", "filepath", "filename", "file_name", "image_name", "img_name"),
        *("image_file", "file", "image", "img"),
    ),
    ("id", "image_id", "img_id", "image_url"),
)
LABEL_NAMES: tuple[tuple[str, ...], ...] = (
    ("label",),
    ("class", "target", "category", "class_name", "label_name", "category_name", "choice", "labels", "classes"),
    ("class_id", "label_id", "category_id", "class_index", "cls"),
)
_OPTIONAL = ("split", "group")


@dataclass(frozen=True)
class Columns:
    """Positions of a table's columns; ``label``, ``split`` and ``group`` are None where the table has no such column.

    ``names`` is the header as written.
    """

    names: tuple[str, ...]
    path: int
    label: int | None
    split: int | None = None
    group: int | None = None

    def note(self) -> str | None:
        """A sentence that names the columns, where they are not called ``path`` and ``label``; else None."""
        label = "" if self.label is None else self.names[self.label]
        if plain(self.names[self.path]) == "path" and plain(label) in ("label", ""):
            return None
        return f"images are named in the column '{self.names[self.path]}'" + (
            f", classes in '{label}'" if label else ""
        )


def find_columns(
    header: Sequence[str], place: str, *, image: str | None = None, label: str | None = None, labelled: bool = True
) -> Columns:
    """The columns of a table, by the names given (``--image-column``, ``--label-column``) or by the usual ones.

    Capitals, blanks at the ends, and blanks or hyphens for underscores do not count. ``place`` begins the messages:
    ``f"{file}: line 1"``. A table of images without labels (``labelled`` False) may have any other columns.

    Raises DataError, which lists the columns found, if one is missing or twice there, if two may be meant, or if a name
    is nearly ``split`` or ``group``.
    """
    names = tuple(visible(cell).strip() for cell in header)
    known = [plain(name) for name in names]
    path = _one(known, names, place, given=image, tiers=PATH_NAMES, role=("path", "--image-column"))
    if labelled or label is not None:
        target = _one(known, names, place, given=label, tiers=LABEL_NAMES, role=("label", "--label-column"))
    else:
        target = None
    if path == target:
        raise DataError(f"{place}: the column '{names[path]}' cannot name both the images and the classes")
    others = {role: _optional(known, place, role) if labelled else None for role in _OPTIONAL}
    return Columns(names, path, target, others["split"], others["group"])


def plain(name: str) -> str:
    """A column's name as it is compared: "Image Path" and "image-path" are ``image_path``."""
    return re.sub(r"[\s-]+", "_", visible(name).strip().lower())


def _one(
    known: Sequence[str],
    names: Sequence[str],
    place: str,
    *,
    given: str | None,
    tiers: Sequence[Sequence[str]],
    role: tuple[str, str],
) -> int:
    word, option = role
    listed = ", ".join(f"'{name}'" for name in names[:12]) + (" ..." if len(names) > 12 else "")
    if given is not None:
        # As written first: a table may have the columns Label and label.
        exact = [index for index, name in enumerate(names) if name == given]
        found = exact or [index for index, name in enumerate(known) if name == plain(given)]
        if not found:
            raise DataError(f"{place} names no column '{given}', as {option} has it; there are {listed or 'none'}")
    else:
        for tier in tiers:
            found = [index for index, name in enumerate(known) if name in tier]
            if found:
                break
        else:
            raise DataError(
                f"{place} names no column {word}; there are {listed or 'none'}: name it with {option}, or "
                f"rename it to '{word}'"
            )
    if len(found) > 1:
        same = {known[index] for index in found}
        if len(same) == 1:
            raise DataError(f"{place} names the column {names[found[0]]} twice")
        several = " or ".join(f"'{names[index]}'" for index in found)
        raise DataError(f"{place}: the column {word} may be {several}: name it with {option}")
    return found[0]


def _optional(known: Sequence[str], place: str, role: str) -> int | None:
    if known.count(role) > 1:
        raise DataError(f"{place} names the column {role} twice")
    if role in known:
        return known.index(role)
    used = {name for tiers in (PATH_NAMES, LABEL_NAMES) for tier in tiers for name in tier} | set(_OPTIONAL)
    for column in known:
        if column not in used and nearest(column, [role], cutoff=0.7) is not None:
            raise DataError(
                f"{place} names a column '{column}'; rename it to '{role}' if that is meant, or to something else"
            )
    return None

"""Display of untrusted text (class names, paths, names of tensors), and the mark of some scores."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping

__all__ = ["HONEST", "drawable", "is_marked", "marked", "visible"]

HONEST = ("test", "out of fold")
"""Kinds of score that estimate the score on new images: no image had a part in the model that it scored."""

_JOINERS = "\u200c\u200d"  # used in Persian and Indic names, and in emoji


def visible(text: str) -> str:
    r"""``text`` on one line, with terminal control characters as ``\x1b``, ``\n``, ``\u202e``.

    This covers Unicode's control, format, surrogate and separator characters; class names and paths are untrusted.
    """
    return "".join(_escaped(c) if _is_hidden(c) else c for c in text)


def drawable(text: str) -> str:
    """:func:`visible` text for a picture, escaped so that matplotlib does not read it as a formula."""
    return visible(text).replace("$", r"\$")


def is_marked(split: str, kinds: Iterable[Mapping[str, str]]) -> bool:
    """True if, in any of several rows, the scores on a split are too good as an estimate."""
    return any(row[split] not in HONEST for row in kinds if split in row)


def marked(split: str, kinds: Iterable[Mapping[str, str]]) -> str:
    """The name of a split for a table: ``val*`` if it is marked; a line below the table explains the mark."""
    return f"{split}*" if is_marked(split, kinds) else split


def _is_hidden(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and character not in _JOINERS


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")

"""Text from elsewhere (class names, paths, names of tensors), made fit to be shown."""

from __future__ import annotations

import unicodedata

__all__ = ["drawable", "visible"]

_JOINERS = "\u200c\u200d"  # spelling of Persian and Indic names, and of emoji


def visible(text: str) -> str:
    r"""``text`` on one line; what a terminal would obey instead of show becomes ``\x1b``, ``\n``, ``\u202e``.

    That is Unicode's control, format, surrogate and separator characters; class names and paths come from others.
    """
    return "".join(_escaped(c) if _is_hidden(c) else c for c in text)


def drawable(text: str) -> str:
    """:func:`visible` text for a picture, in which matplotlib finds no formula."""
    return visible(text).replace("$", r"\$")


def _is_hidden(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and character not in _JOINERS


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")

"""Text in terminal cells: measured, padded, shortened and folded without breaking a figure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from rich.cells import cell_len

from tl_kit.config import CropConfig
from tl_kit.display import EPOCH_FIGURES, figure, figures

__all__ = ["EPOCH_FIGURES", "figure", "figures", "fold", "pad", "shorten", "views_text", "width_of", "wrap"]

_ZERO_WIDTH_JOINER = "\u200d"
_SKIN_TONES = range(0x1F3FB, 0x1F400)
# The spaces inside "93.1 %", "12.0 s" and "0.412 ± 0.003", at which no line may break.
_INNER_SPACE = re.compile(r"(?<=\d) (?=(?:[%±]|m?s\b|[kMGT]?i?B\b|M\b|million\b|points?\b|px\b))|(?<=±) (?=\d)")
_GLUE = "\0"  # displayed text never contains it


def width_of(text: str) -> int:
    """The text's width in terminal cells: two for a wide character, none for a combining one."""
    return cell_len(text)


def pad(text: str, width: int, *, right: bool) -> str:
    """``text`` padded to ``width`` cells, aligned right or left."""
    spaces = " " * (width - width_of(text))
    return spaces + text if right else text + spaces


def wrap(text: str, width: int, *, long_words: bool = True) -> list[str]:
    """Wrap text at words into lines of at most ``width`` cells; a figure stays with its unit and its error.

    Words between double spaces stay together too: ``val accuracy 87.1 %  lr 3.0e-02``. A word longer than ``width`` is
    folded or, with ``long_words`` False, left as it is. Nothing is lost except the spaces at line ends.
    """
    if width_of(text) <= width:
        return [text]
    lines, line = list[str](), ""
    for number, word in enumerate(_words(text, width)):
        longer = f"{line} {word}" if number else word
        if width_of(longer) <= width and (line or not lines):
            line = longer
            continue
        if line.strip(" "):
            lines.append(line.rstrip(" "))
        *whole, line = fold(word, width) if long_words else [word]
        lines += whole
    return [*lines, line.rstrip(" ")] if line.strip(" ") or not lines else lines


def _words(text: str, width: int) -> list[str]:
    """Split a line into pieces between which it may be broken."""
    text = _INNER_SPACE.sub(_GLUE, text)
    parts = text.split("  ")
    if len(parts) > 1:
        parts = [part.replace(" ", _GLUE) if width_of(part) <= width else part for part in parts]
    return [word.replace(_GLUE, " ") for word in "  ".join(parts).split(" ")]


def fold(text: str, width: int) -> list[str]:
    """Fold text into full lines of at most ``width`` cells; a character stays with its combining characters."""
    lines, line, used = list[str](), "", 0
    for cluster in _clusters(text):
        needed = width_of(cluster)
        if line and used + needed > width:
            lines.append(line)
            line, used = "", 0
        line, used = line + cluster, used + needed
    return [*lines, line]


def shorten(names: Sequence[str], width: int, ellipsis: str = "…") -> list[str] | None:
    """Each name in ``width`` cells, with an ellipsis if it is too long; None if two names would become equal.

    The ellipsis is one cell wide. A path keeps its last parts, ``…/resnet18-1``. Another name keeps a short start and a
    longer end, or the other way round if that keeps the names distinct.
    """
    for short in (_end_of_path, _mostly_end, _mostly_start):
        found = [name if width_of(name) <= width else short(name, width, ellipsis) for name in names]
        if len(set(found)) == len(set(names)):
            return found
    return None


def _end_of_path(name: str, width: int, ellipsis: str) -> str:
    parts = name.split("/")
    for first in range(1, len(parts)):
        end = "/".join([ellipsis, *parts[first:]])
        if parts[-1] and width_of(end) <= width:
            return end
    return _mostly_end(name, width, ellipsis)


def _mostly_end(name: str, width: int, ellipsis: str) -> str:
    return _middle(name, (width - 1) // 3, width, ellipsis)


def _mostly_start(name: str, width: int, ellipsis: str) -> str:
    return _middle(name, (width - 1) - (width - 1) // 3, width, ellipsis)


def _middle(name: str, head: int, width: int, ellipsis: str) -> str:
    """The first ``head`` cells of a name, and as much of its end as ``width`` allows."""
    clusters = _clusters(name)
    start = _take(clusters, head)
    end = _take(clusters[::-1], width - 1 - sum(map(width_of, start)))
    return "".join([*start, ellipsis, *end[::-1]])


def _take(clusters: Sequence[str], width: int) -> list[str]:
    taken = list[str]()
    for cluster in clusters:
        width -= width_of(cluster)
        if width < 0:
            break
        taken.append(cluster)
    return taken


def _clusters(text: str) -> list[str]:
    """The characters of a text, each with the accents, joiners and colours that are drawn with it."""
    found = list[str]()
    for character in text:
        if found and (_joins(character) or found[-1].endswith(_ZERO_WIDTH_JOINER)):
            found[-1] += character
        else:
            found.append(character)
    return found


def _joins(character: str) -> bool:
    if character == _ZERO_WIDTH_JOINER or ord(character) in _SKIN_TONES:
        return True
    return unicodedata.category(character) in ("Mn", "Me")


def views_text(crops: CropConfig, mc_dropout: int) -> str:
    """The views that are averaged for each image, in words."""
    return f"{crops}, {mc_dropout} passes with dropout" if mc_dropout else str(crops)
